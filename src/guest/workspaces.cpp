#include "guest/workspaces.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/mount.h>
#include <unistd.h>

#include <algorithm>
#include <boost/asio/buffer.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <sstream>

#include "base/file.h"
#include "guest/console.h"
#include "guest/files_relay.h"

namespace sbx::guest {
namespace {

using namespace std::chrono_literals;

constexpr auto kMountDeadline = 30'000ms;
constexpr auto kUnmountDeadline = 5000ms;
constexpr auto kNotifiedDeadline = 30'000ms;

// mounts(5): space, tab, newline and backslash stand as \ooo.
std::string unescape(std::string_view text) {
  std::string result;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\\' && i + 3 < text.size() + 0 && text[i + 1] >= '0' && text[i + 1] <= '3') {
      result += static_cast<char>((text[i + 1] - '0') * 64 + (text[i + 2] - '0') * 8 + (text[i + 3] - '0'));
      i += 3;
    } else {
      result += text[i];
    }
  }
  return result;
}

[[noreturn]] void unmount_in_child() {
  int failures = 0;
  const auto mounts = read_file("/proc/self/mounts");
  for (const auto& path : our_mount_points(mounts ? *mounts : std::string())) {
    if (::umount2(path.c_str(), UMOUNT_NOFOLLOW) == 0) continue;
    // Busy: open files keep the old tree until they are closed; new look-ups no longer see it.
    if (::umount2(path.c_str(), MNT_DETACH | UMOUNT_NOFOLLOW) != 0) ++failures;
  }
  ::_exit(failures == 0 ? 0 : 1);
}

}  // namespace

Result<std::vector<Workspace>> parse_workspaces(std::string_view text) {
  std::vector<Workspace> workspaces;
  try {
    const auto json = nlohmann::json::parse(text);
    for (const auto& entry : json.at("workspaces")) {
      workspaces.push_back({entry.at("index").get<unsigned>(), entry.at("path").get<std::string>(),
                            entry.value("readonly", false), entry.value("file", false)});
    }
  } catch (const nlohmann::json::exception& error) {
    return fail(ErrorCode::kInvalid, std::string("the workspaces are malformed: ") + error.what());
  }
  for (const auto& workspace : workspaces) {
    const std::filesystem::path path(workspace.path);
    const bool climbs = std::ranges::any_of(path, [](const auto& part) { return part == ".."; });
    if (!path.is_absolute() || climbs || path == "/" || workspace.path.find('\0') != std::string::npos) {
      return fail(ErrorCode::kInvalid, "not a path to mount a workspace at: " + workspace.path);
    }
  }
  // A workspace inside another is bound after it.
  std::ranges::stable_sort(workspaces, {}, [](const Workspace& w) { return std::ranges::count(w.path, '/'); });
  return workspaces;
}

std::vector<std::string> our_mount_points(std::string_view mounts) {
  std::vector<std::string> points;
  std::istringstream lines{std::string(mounts)};
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line);
    std::string source;
    std::string point;
    words >> source >> point;
    if (source == kFuseSource) points.push_back(unescape(point));
  }
  std::ranges::reverse(points);
  return points;
}

std::string Workspaces::primary_folder() const {
  const auto first = std::ranges::find(mounted_, 0U, &Workspace::index);
  if (first == mounted_.end()) return {};
  return first->file ? std::filesystem::path(first->path).parent_path().string() : first->path;
}

void Workspaces::kill_relay() {
  if (relay_ && !relay_->ended.is_set()) ::kill(relay_->pid, SIGKILL);
}

Awaitable<Result<void>> Workspaces::mount(std::vector<Workspace> workspaces) {
  const auto turn = co_await turn_.lock();
  auto cleared = co_await unmount_now();
  if (!cleared) co_return cleared;
  if (workspaces.empty()) co_return Result<void>();

  const auto counter = RelayCounter::make();
  if (!counter) co_return std::unexpected(counter.error());
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC | O_NONBLOCK) != 0) co_return fail_errno("making a pipe", errno);
  boost::asio::posix::stream_descriptor report(executor_, ends[0]);
  UniqueFd said(ends[1]);
  const pid_t pid = ::fork();
  if (pid < 0) co_return fail_errno("starting the files relay", errno);
  if (pid == 0) run_files_relay(workspaces, std::move(said), *counter);
  relay_ = reaper_.adopt(pid);
  said.reset();

  boost::asio::steady_timer deadline(executor_, kMountDeadline);
  bool late = false;
  deadline.async_wait([&late, relay = relay_](boost::system::error_code error) {
    if (error || relay->ended.is_set()) return;
    late = true;
    ::kill(relay->pid, SIGKILL);  // ends the report, too
  });
  std::string answer;
  char buffer[1024];
  for (;;) {
    const auto [error, size] = co_await report.async_read_some(boost::asio::buffer(buffer), kNoThrow);
    if (error || size == 0) break;
    answer.append(buffer, size);
  }
  deadline.cancel();
  if (answer == kRelayReady) {
    mounted_ = std::move(workspaces);
    progress_ = std::make_shared<RelayProgress>(executor_, *counter);
    boost::asio::co_spawn(
        executor_,
        [](std::shared_ptr<Child> relay, std::shared_ptr<RelayProgress> progress) -> Awaitable<void> {
          co_await relay->ended.wait();
          progress->end();
        }(relay_, progress_),
        boost::asio::detached);
    co_return Result<void>();
  }
  kill_relay();
  (void)co_await unmount_now();
  if (late) co_return fail(ErrorCode::kTimeout, "the file server did not answer on the files port");
  co_return fail(ErrorCode::kUnavailable, answer.empty() ? "the files relay ended early" : answer);
}

Awaitable<Result<void>> Workspaces::in_child(ChildStep step, const Workspace& workspace) {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC | O_NONBLOCK) != 0) co_return fail_errno("making a pipe", errno);
  boost::asio::posix::stream_descriptor report(executor_, ends[0]);
  UniqueFd said(ends[1]);
  const pid_t pid = ::fork();
  if (pid < 0) co_return fail_errno("starting a mount", errno);
  if (pid == 0) {
    step(workspace, std::move(said));
    ::_exit(1);  // it has ended the process itself
  }
  const auto child = reaper_.adopt(pid);
  said.reset();
  const bool in_time = co_await child->ended.wait_for(kMountDeadline);
  if (!in_time) {
    ::kill(pid, SIGKILL);
    co_return fail(ErrorCode::kTimeout, "the file server did not answer on the files port");
  }
  std::string answer(1024, '\0');
  const auto [error, size] = co_await report.async_read_some(boost::asio::buffer(answer), kNoThrow);
  answer.resize(size);
  if (answer == kRelayReady) co_return Result<void>();
  if (answer == kRelayBusy) {
    co_return fail(ErrorCode::kConflict, workspace.path + " is in use in the sandbox ('fuser -vm " + workspace.path +
                                             "' there tells by what); end that, or take it away with --force");
  }
  co_return fail(ErrorCode::kUnavailable, answer.empty() ? "the mount ended early" : answer);
}

Awaitable<Result<void>> Workspaces::add(std::vector<Workspace> workspaces) {
  const auto turn = co_await turn_.lock();
  if (!relay_ || relay_->ended.is_set()) co_return fail(ErrorCode::kUnavailable, "there is no files session");
  for (const auto& workspace : workspaces) {
    auto bound = co_await in_child(&bind_in_child, workspace);
    if (!bound) co_return bound;
    mounted_.push_back(workspace);
  }
  co_return Result<void>();
}

Awaitable<Result<void>> Workspaces::remove(std::vector<Workspace> workspaces, RemoveOptions options) {
  const auto turn = co_await turn_.lock();
  for (const auto& workspace : workspaces) {
    const auto found = std::ranges::find(mounted_, workspace.index, &Workspace::index);
    if (found == mounted_.end()) continue;
    const Workspace known = *found;
    auto unbound = co_await in_child(options.force ? &unbind_by_force_in_child : &unbind_in_child, known);
    if (!unbound) co_return unbound;
    std::erase_if(mounted_, [&](const Workspace& mounted) { return mounted.index == known.index; });
  }
  co_return Result<void>();
}

Awaitable<void> Workspaces::notified(std::uint64_t count) {
  const auto progress = progress_;
  if (!progress) co_return;
  const bool reached = co_await progress->reaches(count, kNotifiedDeadline);
  if (!reached) console_line("files: the kernel does not take the file server's notifications");
}

Awaitable<Result<void>> Workspaces::unmount() {
  const auto turn = co_await turn_.lock();
  auto result = co_await unmount_now();
  co_return result;
}

Awaitable<Result<void>> Workspaces::unmount_now() {
  mounted_.clear();
  if (progress_) progress_->end();
  progress_.reset();
  // With the server first, so that dirty pages reach it; if that takes too long, without it.
  bool clean = false;
  for (int attempt = 0; attempt < 2 && !clean; ++attempt) {
    const auto mounts = read_file("/proc/self/mounts");
    if (mounts && our_mount_points(*mounts).empty()) {
      clean = true;
      break;
    }
    const pid_t pid = ::fork();
    if (pid == 0) unmount_in_child();
    if (pid < 0) co_return fail_errno("starting the unmount", errno);
    const auto child = reaper_.adopt(pid);
    const bool in_time = co_await child->ended.wait_for(kUnmountDeadline);
    clean = in_time && child->wait_status == 0;
    if (clean) break;
    ::kill(pid, SIGKILL);
    kill_relay();
    (void)co_await child->ended.wait_for(1000ms);
  }
  kill_relay();
  if (relay_) co_await relay_->ended.wait();  // the port can be opened once only
  relay_.reset();
  if (!clean) co_return fail(ErrorCode::kInternal, "a workspace could not be unmounted");
  co_return Result<void>();
}

}  // namespace sbx::guest
