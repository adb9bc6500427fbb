#include "guest/watch_waker.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <cerrno>
#include <charconv>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "base/file.h"

namespace sbx::guest {
namespace {

// How long changes are gathered, since looking for watchers takes a while.
constexpr int kGatherMs = 50;
constexpr std::size_t kMaxPaths = 1024;

using Folder = std::unique_ptr<DIR, decltype([](DIR* folder) { ::closedir(folder); })>;

// The names of a folder that are numbers.
std::vector<std::string> numbers_in(const std::string& path) {
  std::vector<std::string> names;
  const Folder folder(::opendir(path.c_str()));
  while (const dirent* entry = folder == nullptr ? nullptr : ::readdir(folder.get())) {
    if (std::isdigit(static_cast<unsigned char>(entry->d_name[0])) != 0) names.emplace_back(entry->d_name);
  }
  return names;
}

std::unordered_set<std::uint64_t> watched_inodes(dev_t device) {
  std::unordered_set<std::uint64_t> inodes;
  for (const auto& pid : numbers_in("/proc")) {
    const std::string process = "/proc/" + pid;
    for (const auto& fd : numbers_in(process + "/fd")) {
      std::array<char, 64> target{};
      const ssize_t size = ::readlink((process + "/fd/" + fd).c_str(), target.data(), target.size());
      const std::string_view what(target.data(), size < 0 ? 0 : static_cast<std::size_t>(size));
      if (what != "anon_inode:inotify" && what != "inotify" && what != "anon_inode:[fanotify]") continue;
      if (const auto text = read_file(process + "/fdinfo/" + fd)) add_watched(*text, device, inodes);
    }
  }
  return inodes;
}

void set_modified(const std::string& path) {
  const std::array<timespec, 2> times{timespec{0, UTIME_OMIT}, timespec{0, UTIME_NOW}};
  (void)::utimensat(AT_FDCWD, path.c_str(), times.data(), AT_SYMLINK_NOFOLLOW);
}

void wake_watchers(const std::string& mount_point, const std::set<std::string>& paths) {
  struct stat root {};
  if (::stat(mount_point.c_str(), &root) != 0) return;
  const auto watched = watched_inodes(root.st_dev);
  if (watched.empty()) return;
  for (const auto& path : paths) {
    const std::string file = mount_point + "/" + path;
    const std::string folder = file.substr(0, file.rfind('/'));
    struct stat status {};
    const bool by_folder = ::lstat(folder.c_str(), &status) == 0 && watched.contains(status.st_ino);
    if (::lstat(file.c_str(), &status) == 0) {
      if (by_folder || watched.contains(status.st_ino)) set_modified(file);
    } else if (by_folder) {
      set_modified(folder);
    }
  }
}

[[noreturn]] void serve(int pipe, const std::string& mount_point) {
  std::string input;
  std::set<std::string> paths;
  std::array<char, 4096> buffer{};
  for (;;) {
    pollfd more{pipe, POLLIN, 0};
    const int ready = ::poll(&more, 1, paths.empty() ? -1 : kGatherMs);
    if (ready < 0 && errno == EINTR) continue;
    if (ready == 0 || paths.size() >= kMaxPaths) {
      wake_watchers(mount_point, paths);
      paths.clear();
      continue;
    }
    const ssize_t size = ::read(pipe, buffer.data(), buffer.size());
    if (size < 0 && errno == EINTR) continue;
    if (size <= 0) ::_exit(0);
    input.append(buffer.data(), static_cast<std::size_t>(size));
    for (std::size_t end = 0; (end = input.find('\0')) != std::string::npos; input.erase(0, end + 1)) {
      paths.insert(input.substr(0, end));
    }
  }
}

bool take_hex(std::string_view line, std::string_view key, std::uint64_t& value) {
  const auto at = line.find(key);
  if (at == std::string_view::npos) return false;
  const auto digits = line.substr(at + key.size());
  return std::from_chars(digits.data(), digits.data() + digits.size(), value, 16).ec == std::errc();
}

}  // namespace

void add_watched(std::string_view fdinfo, dev_t device, std::unordered_set<std::uint64_t>& inodes) {
  // The kernel's own encoding of a device, not stat(2)'s.
  const std::uint64_t wanted = static_cast<std::uint64_t>(major(device)) << 20U | minor(device);
  while (!fdinfo.empty()) {
    const auto end = std::min(fdinfo.find('\n'), fdinfo.size());
    const auto line = fdinfo.substr(0, end);
    fdinfo.remove_prefix(std::min(end + 1, fdinfo.size()));
    std::uint64_t inode = 0;
    std::uint64_t where = 0;
    if (take_hex(line, " ino:", inode) && take_hex(line, " sdev:", where) && where == wanted) inodes.insert(inode);
  }
}

Result<WatchWaker> WatchWaker::start(const char* mount_point) {
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) return fail_errno("pipe2", errno);
  UniqueFd reader(ends[0]);
  UniqueFd writer(ends[1]);
  if (::fcntl(writer.get(), F_SETFL, O_NONBLOCK) != 0) return fail_errno("fcntl", errno);
  const pid_t pid = ::fork();
  if (pid < 0) return fail_errno("fork", errno);
  if (pid == 0) {
    // Nothing else may stay open here: the end of the relay is seen by what it has open.
    constexpr unsigned kPipe = 3;
    ::dup2(reader.get(), kPipe);
    ::syscall(SYS_close_range, kPipe + 1, ~0U, 0);
    serve(kPipe, mount_point);
  }
  return WatchWaker(std::move(writer), pid);
}

void WatchWaker::changed(std::string_view path) const {
  const std::string message = std::string(path) + '\0';
  if (message.size() > PIPE_BUF) return;  // could be torn
  [[maybe_unused]] const ssize_t ignored = ::write(pipe_.get(), message.data(), message.size());
}

}  // namespace sbx::guest
