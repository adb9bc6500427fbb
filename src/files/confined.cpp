#include "files/confined.h"

#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <cerrno>
#include <climits>

namespace sbx::files {
namespace {

// Mounts inside a workspace may be crossed: they are part of what the user sees there.
constexpr std::uint64_t kResolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS;

Outcome<UniqueFd> open_beneath(int folder, const std::string& name, int flags, mode_t mode) {
  open_how how{};
  how.flags = static_cast<std::uint64_t>(flags | O_CLOEXEC | O_NOFOLLOW);
  how.mode = mode;
  how.resolve = kResolve;
  while (true) {
    const long fd = ::syscall(SYS_openat2, folder, name.c_str(), &how, sizeof(how));
    if (fd >= 0) return UniqueFd(static_cast<int>(fd));
    // EAGAIN: a rename elsewhere made the kernel unsure whether the walk stayed beneath; to be tried again
    // (openat2(2)).
    if (errno != EINTR && errno != EAGAIN) return std::unexpected(errno);
  }
}

}  // namespace

Outcome<UniqueFd> open_child(int folder, const std::string& name) { return open_beneath(folder, name, O_PATH, 0); }

Outcome<UniqueFd> create_child(int folder, const std::string& name, int access_mode, mode_t mode) {
  return open_beneath(folder, name, O_CREAT | O_EXCL | O_NONBLOCK | O_NOCTTY | (access_mode & O_ACCMODE), mode & 0777U);
}

Outcome<UniqueFd> reopen(int path_fd, int flags) {
  const int fd = ::open(descriptor_path(path_fd).c_str(), flags | O_CLOEXEC | O_NOCTTY);
  if (fd < 0) return std::unexpected(errno);
  return UniqueFd(fd);
}

std::string descriptor_path(int fd) { return "/proc/self/fd/" + std::to_string(fd); }

Outcome<std::string> location_of(int fd) {
  std::string path(PATH_MAX, '\0');
  const ssize_t size = ::readlink(descriptor_path(fd).c_str(), path.data(), path.size());
  if (size < 0) return std::unexpected(errno);
  path.resize(static_cast<std::size_t>(size));
  return path;
}

Outcome<struct statx> status_of(int fd) {
  struct statx status {};
  if (::statx(fd, "", AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW, STATX_BASIC_STATS | STATX_BTIME, &status) != 0) {
    return std::unexpected(errno);
  }
  return status;
}

dev_t device_of(const struct statx& status) { return makedev(status.stx_dev_major, status.stx_dev_minor); }

}  // namespace sbx::files
