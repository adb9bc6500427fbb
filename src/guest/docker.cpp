#include "guest/docker.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <boost/asio/buffer.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/write.hpp>
#include <cstring>
#include <filesystem>
#include <string>

#include "base/file.h"
#include "guest/console.h"
#include "guest/container_runtime.h"
#include "guest/spawn.h"
#include "guest/users.h"

namespace sbx::guest {
namespace {

using namespace std::chrono_literals;

constexpr std::string_view kPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
constexpr const char* kGroup = "services";
constexpr auto kPingInterval = 1000ms;
constexpr const char* kSocket = "/run/docker.sock";
constexpr const char* kContainers = "/var/lib/docker/containers";
constexpr auto kFirstBackoff = 500ms;
constexpr auto kLongestBackoff = 30'000ms;
constexpr int kFailuresUntilFailed = 5;

bool is_installed() {
  const auto candidates = program_candidates("dockerd", kPath);
  return std::ranges::any_of(candidates, [](const std::string& path) { return ::access(path.c_str(), X_OK) == 0; });
}

Result<UniqueFd> listen_for_clients() {
  UniqueFd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!socket.valid()) return fail_errno("socket", errno);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::strcpy(address.sun_path, kSocket);
  ::unlink(kSocket);
  if (::bind(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    return fail_errno(std::string("binding ") + kSocket, errno);
  }
  const auto owner = find_user("root:docker");
  if (::chown(kSocket, 0, owner ? owner->gid : 0) != 0 || ::chmod(kSocket, 0660) != 0) {
    return fail_errno(std::string("giving away ") + kSocket, errno);
  }
  if (::listen(socket.get(), SOMAXCONN) != 0) return fail_errno(std::string("listening on ") + kSocket, errno);
  return socket;
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

void Docker::listen() {
  if (!is_installed()) return;
  auto socket = listen_for_clients();
  if (!socket) return console_line(socket.error().describe());  // start() tries again
  socket_ = *std::move(socket);
}

Result<void> Docker::start() {
  // Left by a dockerd that was killed; the process ids in them mean somebody else now.
  ::unlink("/run/docker.pid");
  ::unlink("/run/docker/containerd/containerd.pid");
  if (!socket_.valid()) socket_ = SBX_TRY(listen_for_clients(), "starting dockerd");
  cgroups_.thaw_services();  // or the new process would stand still before it is one
  const UniqueFd log =
      SBX_TRY(open_file("/var/log/dockerd.log", O_WRONLY | O_CREAT | O_APPEND, 0644), "starting dockerd");
  const UniqueFd group = SBX_TRY(cgroups_.make(kGroup), "starting dockerd");
  SpawnPlan plan;
  plan.argv = {"dockerd", "-H", "fd://"};
  plan.candidates = program_candidates("dockerd", kPath);
  // The runtimes that dockerd, containerd and BuildKit find are ours (container_runtime.h).
  SBX_CHECK(install_runtime_links(), "starting dockerd");
  plan.environment = {"PATH=" + std::string(kRuntimeFolder) + ":" + std::string(kPath), "HOME=/root", "LANG=C.UTF-8"};
  plan.user.home = "/root";
  plan.standard[1] = plan.standard[2] = log.get();
  plan.cgroup = group.get();
  plan.listening = socket_.get();
  const auto spawned = SBX_TRY(spawn(plan), "starting dockerd");
  child_ = reaper_.adopt(spawned.pid);
  return {};
}

Awaitable<void> Docker::run() {
  if (!is_installed()) co_return disable();
  std::chrono::milliseconds backoff = kFirstBackoff;
  for (int failures = 0; !stopping_.is_set();) {
    enter(failures < kFailuresUntilFailed ? State::kStarting : State::kFailed);
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
  enter(State::kOff);
}

Awaitable<void> Docker::watch_readiness(std::shared_ptr<Child> child) {
  while (!child->ended.is_set()) {
    const bool answers = co_await answers_ping(child);
    if (answers && !child->ended.is_set()) {
      enter(State::kReady);
      console_line("docker ready");
      co_return;
    }
    (void)co_await child->ended.wait_for(kPingInterval);
  }
}

// Connects to our own socket at once; the answer comes when dockerd takes the connection, and serves.
Awaitable<bool> Docker::answers_ping(std::shared_ptr<Child> child) {
  using Local = boost::asio::local::stream_protocol;
  const auto socket = std::make_shared<Local::socket>(executor_);
  const Local::endpoint endpoint(kSocket);
  const auto [refused] = co_await socket->async_connect(endpoint, kNoThrow);
  if (refused) co_return false;
  // A dockerd that ends before it has taken the connection leaves it waiting.
  boost::asio::co_spawn(
      executor_,
      [](std::shared_ptr<Child> watched, std::shared_ptr<Local::socket> connection) -> Awaitable<void> {
        co_await watched->ended.wait();
        boost::system::error_code ignored;
        connection->close(ignored);
      }(child, socket),
      boost::asio::detached);
  const std::string request = "GET /_ping HTTP/1.0\r\nHost: docker\r\n\r\n";
  const auto [unsent, sent] = co_await boost::asio::async_write(*socket, boost::asio::buffer(request), kNoThrow);
  if (unsent) co_return false;
  char answer[256];
  const auto [error, size] = co_await socket->async_read_some(boost::asio::buffer(answer), kNoThrow);
  co_return !error && std::string_view(answer, size).find(" 200 ") != std::string_view::npos;
}

void Docker::enter(State state) {
  state_ = state;
  changed_.notify();
}

Awaitable<void> Docker::settled() {
  while (state_ == State::kStarting) co_await changed_.wait();
}

bool Docker::sleep_until_used() {
  std::error_code error;
  if (state_ != State::kReady || !std::filesystem::is_empty(kContainers, error) || error) return false;
  boost::asio::co_spawn(executor_, wake_when_used(), boost::asio::detached);
  return true;
}

Awaitable<void> Docker::wake_when_used() {
  // A descriptor of its own: the reactor reports a socket that is readable already only to a new one.
  boost::asio::posix::stream_descriptor clients(executor_, ::fcntl(socket_.get(), F_DUPFD_CLOEXEC, 3));
  const auto [error] = co_await clients.async_wait(boost::asio::posix::stream_descriptor::wait_read, kNoThrow);
  if (!error) cgroups_.thaw_services();
}

Awaitable<void> Docker::stop(std::chrono::milliseconds deadline) {
  stopping_.set();
  const auto child = child_;
  if (!child || child->ended.is_set()) co_return;
  cgroups_.thaw_services();  // a frozen process does not see the signal
  ::kill(child->pid, SIGTERM);
  const bool polite = co_await child->ended.wait_for(deadline);
  cgroups_.kill(kGroup);
  if (!polite) co_await child->ended.wait();
}

}  // namespace sbx::guest
