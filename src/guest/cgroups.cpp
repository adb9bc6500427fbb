#include "guest/cgroups.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>

#include <boost/asio/this_coro.hpp>
#include <cerrno>
#include <fstream>

#include "base/file.h"

namespace sbx::guest {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

// cgroup files take one write(2) and have no length to truncate to.
bool put(const std::filesystem::path& file, std::string_view text) {
  const UniqueFd fd(::open(file.c_str(), O_WRONLY | O_CLOEXEC));
  return fd.valid() && ::write(fd.get(), text.data(), text.size()) == static_cast<ssize_t>(text.size());
}

bool event_is(const std::filesystem::path& group, std::string_view key, std::string_view value) {
  std::ifstream events(group / "cgroup.events");
  std::string word;
  std::string number;
  while (events >> word >> number) {
    if (word == key) return number == value;
  }
  return true;  // the group has gone: it is whatever was waited for
}

void signal_tree(const std::filesystem::path& group, int signal_number) {
  std::ifstream processes(group / "cgroup.procs");
  for (pid_t pid = 0; processes >> pid;) {
    if (pid > 1) ::kill(pid, signal_number);
  }
  std::error_code ignored;
  for (const auto& entry : std::filesystem::directory_iterator(group, ignored)) {
    if (entry.is_directory(ignored)) signal_tree(entry.path(), signal_number);
  }
}

// Wakes every few milliseconds: cgroup.events has no notification that asio's reactor can wait for (POLLPRI of a
// kernfs file needs a read after each wait), and these waits last milliseconds.
Awaitable<bool> wait_until(const std::vector<std::filesystem::path>& groups, std::string_view key,
                           std::string_view value, milliseconds limit) {
  const auto executor = co_await boost::asio::this_coro::executor;
  const auto deadline = steady_clock::now() + limit;
  for (const auto& group : groups) {
    while (!event_is(group, key, value)) {
      if (steady_clock::now() >= deadline) co_return false;
      co_await sleep_for(executor, milliseconds(3));
    }
  }
  co_return true;
}

}  // namespace

Result<void> Cgroups::prepare() {
  for (const char* name : {"init", "services", "user"}) {
    if (::mkdir((root_ / name).c_str(), 0755) != 0 && errno != EEXIST) return fail_errno("making a cgroup", errno);
  }
  if (!put(root_ / "init/cgroup.procs", "0")) return fail_errno("entering the cgroup /init", errno);
  for (const char* controller : {"+cpu", "+cpuset", "+io", "+memory", "+pids"}) {
    (void)put(root_ / "cgroup.subtree_control", controller);  // a kernel may lack one
  }
  // For each command's own count of what was killed for want of memory.
  (void)put(root_ / "user/cgroup.subtree_control", "+memory");
  return {};
}

Result<UniqueFd> Cgroups::make(const std::string& name) {
  const auto path = root_ / name;
  collect();
  if (::mkdir(path.c_str(), 0755) != 0 && errno != EEXIST) return fail_errno("making the cgroup " + name, errno);
  return open_file(path, O_RDONLY | O_DIRECTORY);
}

bool Cgroups::out_of_memory(const std::string& name) const {
  std::ifstream events(root_ / name / "memory.events");
  std::string word;
  for (std::uint64_t count = 0; events >> word >> count;) {
    if (word == "oom_kill") return count > 0;
  }
  return false;
}

void Cgroups::kill(const std::string& name) { (void)put(root_ / name / "cgroup.kill", "1"); }

void Cgroups::signal(const std::string& name, int signal_number) { signal_tree(root_ / name, signal_number); }

void Cgroups::remove_when_empty(const std::string& name) {
  leaving_.push_back(name);
  collect();
}

void Cgroups::collect() {
  std::erase_if(leaving_,
                [&](const std::string& name) { return ::rmdir((root_ / name).c_str()) == 0 || errno == ENOENT; });
}

std::vector<std::filesystem::path> Cgroups::top_level() const {
  std::vector<std::filesystem::path> groups;
  std::error_code ignored;
  for (const auto& entry : std::filesystem::directory_iterator(root_, ignored)) {
    if (entry.is_directory(ignored) && entry.path().filename() != "init") groups.push_back(entry.path());
  }
  return groups;
}

Awaitable<Result<void>> Cgroups::set_frozen(bool frozen, milliseconds deadline) {
  const auto groups = top_level();
  for (const auto& group : groups) (void)put(group / "cgroup.freeze", frozen ? "1" : "0");
  frozen_ = frozen;
  const bool done = co_await wait_until(groups, "frozen", frozen ? "1" : "0", deadline);
  if (!done) co_return fail(ErrorCode::kTimeout, frozen ? "some process could not be frozen" : "thawing took too long");
  co_return Result<void>();
}

Awaitable<Result<void>> Cgroups::end_user_processes(milliseconds grace) {
  auto groups = top_level();
  std::erase_if(groups, [](const auto& group) { return group.filename() == "services"; });
  for (const auto& group : groups) {
    signal_tree(group, SIGTERM);
    signal_tree(group, SIGCONT);
  }
  const bool polite = co_await wait_until(groups, "populated", "0", grace);
  if (polite) co_return Result<void>();
  for (const auto& group : groups) (void)put(group / "cgroup.kill", "1");
  const bool gone = co_await wait_until(groups, "populated", "0", milliseconds(5000));
  if (!gone) co_return fail(ErrorCode::kTimeout, "some process did not end, even after SIGKILL");
  co_return Result<void>();
}

}  // namespace sbx::guest
