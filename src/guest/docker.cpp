#include "guest/docker.h"

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <boost/asio/buffer.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/write.hpp>
#include <string>

#include "base/file.h"
#include "guest/console.h"
#include "guest/container_runtime.h"
#include "guest/spawn.h"

namespace sbx::guest {
namespace {

using namespace std::chrono_literals;

constexpr std::string_view kPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
constexpr const char* kGroup = "services";
constexpr auto kPingInterval = 100ms;
constexpr auto kFirstBackoff = 500ms;
constexpr auto kLongestBackoff = 30'000ms;
constexpr int kFailuresUntilFailed = 5;

bool is_installed() {
  const auto candidates = program_candidates("dockerd", kPath);
  return std::ranges::any_of(candidates, [](const std::string& path) { return ::access(path.c_str(), X_OK) == 0; });
}

}  // namespace

std::string_view Docker::state_word() const {
  switch (state_) {
    case State::kOff:
      return "off";
    case State::kStarting:
      return "starting";
    case State::kReady:
      return "ready";
    case State::kFailed:
      return "failed";
  }
  return "failed";
}

Result<void> Docker::start() {
  // Left by a dockerd that was killed; the process ids in them mean somebody else now.
  ::unlink("/run/docker.pid");
  ::unlink("/run/docker/containerd/containerd.pid");
  const UniqueFd log =
      SBX_TRY(open_file("/var/log/dockerd.log", O_WRONLY | O_CREAT | O_APPEND, 0644), "starting dockerd");
  const UniqueFd group = SBX_TRY(cgroups_.make(kGroup), "starting dockerd");
  SpawnPlan plan;
  plan.argv = {"dockerd"};
  plan.candidates = program_candidates("dockerd", kPath);
  // The runtimes that dockerd, containerd and BuildKit find are ours (container_runtime.h).
  SBX_CHECK(install_runtime_links(), "starting dockerd");
  plan.environment = {"PATH=" + std::string(kRuntimeFolder) + ":" + std::string(kPath), "HOME=/root", "LANG=C.UTF-8"};
  plan.user.home = "/root";
  plan.standard[1] = plan.standard[2] = log.get();
  plan.cgroup = group.get();
  const auto spawned = SBX_TRY(spawn(plan), "starting dockerd");
  child_ = reaper_.adopt(spawned.pid);
  return {};
}

Awaitable<void> Docker::run() {
  if (!is_installed()) co_return disable();
  std::chrono::milliseconds backoff = kFirstBackoff;
  for (int failures = 0; !stopping_.is_set();) {
    state_ = failures < kFailuresUntilFailed ? State::kStarting : State::kFailed;
    const auto started = start();
    if (started) {
      boost::asio::co_spawn(executor_, watch_readiness(child_), boost::asio::detached);
      co_await child_->ended.wait();
    }
    if (stopping_.is_set()) break;
    if (state_ == State::kReady) {
      failures = 0;
      backoff = kFirstBackoff;
    }
    ++failures;
    console_line(started ? "dockerd ended, restarting it" : started.error().describe());
    cgroups_.kill(kGroup);  // a containerd of the old one would be in the new one's way
    const bool stopped = co_await stopping_.wait_for(backoff);
    if (stopped) break;
    backoff = std::min<std::chrono::milliseconds>(backoff * 2, kLongestBackoff);
  }
  state_ = State::kOff;
}

Awaitable<void> Docker::watch_readiness(std::shared_ptr<Child> child) {
  while (!child->ended.is_set()) {
    const bool answers = co_await answers_ping();
    if (answers && !child->ended.is_set()) {
      state_ = State::kReady;
      console_line("docker ready");
      co_return;
    }
    (void)co_await child->ended.wait_for(kPingInterval);
  }
}

Awaitable<bool> Docker::answers_ping() {
  using Local = boost::asio::local::stream_protocol;
  if (::access("/run/docker.sock", F_OK) != 0) co_return false;
  Local::socket socket(executor_);
  const Local::endpoint endpoint("/run/docker.sock");
  const auto [refused] = co_await socket.async_connect(endpoint, kNoThrow);
  if (refused) co_return false;
  const std::string request = "GET /_ping HTTP/1.0\r\nHost: docker\r\n\r\n";
  const auto [unsent, sent] = co_await boost::asio::async_write(socket, boost::asio::buffer(request), kNoThrow);
  if (unsent) co_return false;
  // A dockerd that takes the connection but hangs is given up with its process, whose end closes the socket.
  char answer[256];
  const auto [error, size] = co_await socket.async_read_some(boost::asio::buffer(answer), kNoThrow);
  co_return !error && std::string_view(answer, size).find(" 200 ") != std::string_view::npos;
}

Awaitable<void> Docker::stop(std::chrono::milliseconds deadline) {
  stopping_.set();
  const auto child = child_;
  if (!child || child->ended.is_set()) co_return;
  ::kill(child->pid, SIGTERM);
  const bool polite = co_await child->ended.wait_for(deadline);
  cgroups_.kill(kGroup);
  if (!polite) co_await child->ended.wait();
}

}  // namespace sbx::guest
