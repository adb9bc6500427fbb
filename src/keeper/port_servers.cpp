#include "keeper/port_servers.h"

#include <poll.h>
#include <signal.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "keeper/late_mount.h"

namespace sbx::keeper {
namespace {

using namespace std::chrono_literals;

// A server that ends again and again is started again at once this many times, then later and later.
constexpr int kPromptRestarts = 10;
constexpr auto kLongestPause = 30s;
// One that has lived that long is forgiven.
constexpr auto kForgiveAfter = 60s;
// How long one that was killed may take to be gone: what it waits for may be a slow disk.
constexpr std::chrono::milliseconds kDeath = 10s;

bool among(const std::vector<Workspace>& list, const Workspace& workspace) {
  return std::ranges::find(list, workspace.index, &Workspace::index) != list.end();
}

}  // namespace

PortServers::PortServers(LaunchSpec& spec, Listener listener, Starts starts)
    : spec_(spec), listener_(std::move(listener)), starts_(starts) {}

void PortServers::add(Kind kind) {
  servers_.push_back({kind, kind == Kind::kFiles ? starts_.files : starts_.gateway, Subprocess(), UniqueFd()});
}

PortServers::Server* PortServers::find(Kind kind) {
  const auto found = std::ranges::find(servers_, kind, &Server::kind);
  return found != servers_.end() ? &*found : nullptr;
}

const PortServers::Server* PortServers::find(Kind kind) const {
  const auto found = std::ranges::find(servers_, kind, &Server::kind);
  return found != servers_.end() ? &*found : nullptr;
}

Result<void> PortServers::start(Server& server) {
  server.process = SBX_TRY(server.starter(spec_, server.control), std::string("starting ") + server.name());
  server.started = Clock::now();
  return {};
}

Result<void> PortServers::start() {
  if (!spec_.workspaces.empty()) add(Kind::kFiles);
  if (spec_.gateway_fd >= 0 && !spec_.spare) add(Kind::kGateway);
  for (Server& server : servers_) SBX_CHECK(start(server), "starting the servers of the ports");
  listener_.changed();
  return {};
}

std::vector<int> PortServers::watched() const {
  std::vector<int> pidfds;
  for (const Server& server : servers_) {
    if (server.process.running()) pidfds.push_back(server.process.pidfd());
  }
  return pidfds;
}

void PortServers::ended(int pidfd) {
  const auto found = std::ranges::find_if(
      servers_, [&](const Server& server) { return server.process.running() && server.process.pidfd() == pidfd; });
  if (found == servers_.end()) return;
  Server& server = *found;
  const auto exit = server.process.wait();
  const std::string how = exit ? exit->describe() : exit.error().describe();
  if (!listener_.wanted()) return;
  server.restarts = Clock::now() - server.started > kForgiveAfter ? 1 : server.restarts + 1;
  if (server.restarts <= kPromptRestarts) {
    spdlog::warn("{} ended ({}), starting it again", server.name(), how);
    return start_again(server);
  }
  const auto pause = pause_before(server);
  spdlog::error("{} ends again and again ({}); it is started again in {} s", server.name(), how, pause.count());
  server.due = Clock::now() + pause;
}

std::optional<PortServers::Clock::time_point> PortServers::next_due() const {
  std::optional<Clock::time_point> next;
  for (const Server& server : servers_) {
    if (server.due && (!next || *server.due < *next)) next = server.due;
  }
  return next;
}

void PortServers::start_due(Clock::time_point now) {
  for (Server& server : servers_) {
    if (server.due && now >= *server.due) start_again(server);
  }
}

std::chrono::seconds PortServers::pause_before(const Server& server) {
  const int doublings = std::clamp(server.restarts - kPromptRestarts - 1, 0, 10);
  return std::min<std::chrono::seconds>(kLongestPause, 1s * (1 << doublings));
}

void PortServers::start_again(Server& server) {
  server.due.reset();
  if (!listener_.wanted()) return;
  if (const auto started = start(server); !started) {
    server.restarts = std::max(server.restarts, kPromptRestarts) + 1;
    const auto pause = pause_before(server);
    spdlog::error("{} cannot be started: {}; tried again in {} s", server.name(), started.error().describe(),
                  pause.count());
    server.due = Clock::now() + pause;
    return;
  }
  listener_.changed();
  if (server.kind == Kind::kFiles) listener_.files_replaced();
}

int PortServers::asking() const {
  const Server* gateway = find(Kind::kGateway);
  return gateway != nullptr && gateway->control.valid() ? gateway->control.get() : -1;
}

void PortServers::answer(int asking) {
  Server* gateway = find(Kind::kGateway);
  // It may have been replaced meanwhile, and ask on another.
  if (gateway == nullptr || !gateway->control.valid() || gateway->control.get() != asking) return;
  if (!connect_to_agent(asking, spec_.ssh_agent_socket())) gateway->control.reset();
}

Result<UniqueFd> PortServers::take_files_control() {
  Server* files = find(Kind::kFiles);
  if (files != nullptr && files->control.valid()) return std::move(files->control);
  return fail(ErrorCode::kUnavailable, "there is no sbx-files to connect to");
}

pid_t PortServers::files_pid() const {
  const Server* files = find(Kind::kFiles);
  return files != nullptr && files->process.running() ? files->process.pid() : 0;
}

// What the next server is started with is without it already; one that it cannot be taken from ends.
Result<void> PortServers::unmount(Server& server, const Workspace& workspace) {
  if (!server.process.running()) {
    server.due = Clock::now();  // it may have been what the server could not be started for
    return {};
  }
  const auto done = unmount_from_jail(server.process.pid(), workspace);
  if (done) return {};
  spdlog::warn("{}; sbx-files is started again without it", done.error().describe());
  server.process.kill(SIGKILL);
  // It serves until it is gone. (Its pidfd tells of the whole jail, which has a PID namespace of its own. It is reaped
  // where the others are.)
  pollfd gone{server.process.pidfd(), POLLIN, 0};
  int ready = 0;
  while ((ready = ::poll(&gone, 1, static_cast<int>(kDeath.count()))) < 0 && errno == EINTR) {
  }
  if (ready == 1) return {};
  return fail(ErrorCode::kTimeout,
              "the sandbox's file server was ended, and is not gone yet; what was unmounted may be "
              "in its reach until then");
}

Result<void> PortServers::change_mounts() {
  const auto wanted = SBX_TRY(read_mounts(spec_.runtime_folder), "changing the mounts");
  Server* server = find(Kind::kFiles);
  if (server == nullptr) {
    if (wanted.empty()) return {};
    spec_.workspaces = wanted;
    add(Kind::kFiles);
    if (auto started = start(servers_.back()); !started) {
      servers_.pop_back();
      spec_.workspaces.clear();
      return started;
    }
    listener_.changed();
    return {};
  }
  Result<void> unmounted;
  for (const auto& workspace : std::exchange(spec_.workspaces, {})) {
    if (among(wanted, workspace)) {
      spec_.workspaces.push_back(workspace);
    } else if (auto done = unmount(*server, workspace); !done) {
      unmounted = std::move(done);
    }
  }
  SBX_CHECK(std::move(unmounted), "changing the mounts");
  for (const auto& workspace : wanted) {
    if (among(spec_.workspaces, workspace)) continue;
    if (!server->process.running())
      return fail(ErrorCode::kUnavailable, "the sandbox's file server is being started again; try again in a moment");
    SBX_CHECK(mount_into_jail(server->process.pid(), workspace), "changing the mounts");
    spec_.workspaces.push_back(workspace);
  }
  return {};
}

}  // namespace sbx::keeper
