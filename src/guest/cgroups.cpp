#include "guest/cgroups.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>

#include <boost/asio/this_coro.hpp>
#include <cerrno>
#include <fstream>
#include <utility>

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

bool is_services(const std::filesystem::path& group) { return group.filename() == "services"; }

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

Result<Cgroups::Group> Cgroups::take() {
  collect();
  if (const auto spare = std::exchange(spare_, std::nullopt)) {
    // Root in the VM may have removed it, or put something into it.
    auto fd = open_file(root_ / *spare, O_RDONLY | O_DIRECTORY);
    if (fd && event_is(root_ / *spare, "populated", "0")) return Group{*spare, *std::move(fd)};
  }
  return make_numbered();
}

void Cgroups::keep_spare() {
  if (spare_) return;
  if (auto group = make_numbered()) spare_ = std::move(group->name);
}

Result<UniqueFd> Cgroups::make(const std::string& name) {
  const auto path = root_ / name;
  if (::mkdir(path.c_str(), 0755) != 0 && errno != EEXIST) return fail_errno("making the cgroup " + name, errno);
  return open_file(path, O_RDONLY | O_DIRECTORY);
}

Result<Cgroups::Group> Cgroups::make_numbered() {
  std::string name;
  do {
    name = "user/" + std::to_string(++made_);
  } while (::mkdir((root_ / name).c_str(), 0755) != 0 && errno == EEXIST);  // root in the VM may make some, too
  auto fd = SBX_TRY(open_file(root_ / name, O_RDONLY | O_DIRECTORY), "making the cgroup " + name);
  return Group{std::move(name), std::move(fd)};
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

void Cgroups::reclaim() {
  // More than there can be: the kernel stops, and says EAGAIN, when nothing is left that it can take.
  // Services that have slept since the template was saved have cached nothing since.
  auto groups = top_level();
  if (event_is(root_ / "services", "frozen", "1")) std::erase_if(groups, is_services);
  for (const auto& group : groups) (void)put(group / "memory.reclaim", "1T");
}

Awaitable<Result<void>> Cgroups::freeze(milliseconds deadline) {
  const auto groups = top_level();
  for (const auto& group : groups) (void)put(group / "cgroup.freeze", "1");
  frozen_ = true;
  const bool done = co_await wait_until(groups, "frozen", "1", deadline);
  if (!done) co_return fail(ErrorCode::kTimeout, "some process could not be frozen");
  co_return Result<void>();
}

Awaitable<Result<void>> Cgroups::thaw(milliseconds deadline) { co_return co_await thaw(deadline, ThawOptions()); }

Awaitable<Result<void>> Cgroups::thaw(milliseconds deadline, ThawOptions options) {
  auto groups = top_level();
  if (!options.services) std::erase_if(groups, is_services);
  for (const auto& group : groups) (void)put(group / "cgroup.freeze", "0");
  frozen_ = false;
  const bool done = co_await wait_until(groups, "frozen", "0", deadline);
  if (!done) co_return fail(ErrorCode::kTimeout, "thawing took too long");
  co_return Result<void>();
}

void Cgroups::thaw_services() { (void)put(root_ / "services/cgroup.freeze", "0"); }

Awaitable<Result<void>> Cgroups::freeze_services(milliseconds deadline) {
  const std::vector<std::filesystem::path> groups(1, root_ / "services");
  (void)put(groups.front() / "cgroup.freeze", "1");
  frozen_ = true;
  const bool done = co_await wait_until(groups, "frozen", "1", deadline);
  if (!done) co_return fail(ErrorCode::kTimeout, "dockerd could not be frozen");
  co_return Result<void>();
}

Awaitable<Result<void>> Cgroups::end_user_processes(milliseconds grace) {
  auto groups = top_level();
  std::erase_if(groups, is_services);
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
