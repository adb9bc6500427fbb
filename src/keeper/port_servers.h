// PortServers: the jailed processes behind the guest's ports, sbx-files and sbx-gateway. Started when the guest runs,
// and replaced when they end: at once, or after growing pauses where that happens again and again. Changes of the
// mounts reach sbx-files here.
//
// Owns the processes. One thread, blocking.
#pragma once

#include <chrono>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/command.h"
#include "base/result.h"
#include "base/unique_fd.h"
#include "keeper/files_server.h"
#include "keeper/gateway_server.h"
#include "keeper/launch_spec.h"

namespace sbx::keeper {

class PortServers {
 public:
  using Clock = std::chrono::steady_clock;
  // `control` becomes the keeper's end of a socket to the server, if it has one.
  using Start = Result<Subprocess> (*)(const LaunchSpec& spec, UniqueFd& control);
  struct Starts {
    Start files = &start_files_server;
    Start gateway = &start_gateway;
  };
  struct Listener {
    std::function<bool()> wanted;          // whether one that has ended is to be replaced
    std::function<void()> changed;         // one has been started
    std::function<void()> files_replaced;  // and took over from another sbx-files
  };

  // `spec` outlives this; its workspaces follow the mounts.
  PortServers(LaunchSpec& spec, Listener listener) : PortServers(spec, std::move(listener), Starts()) {}
  PortServers(LaunchSpec& spec, Listener listener, Starts starts);

  // Those that the spec asks for (a spare has no gateway yet), when none runs.
  Result<void> start();
  void end() { servers_.clear(); }

  // The pidfds of those that run, to be polled, and what to do when one of them is readable.
  std::vector<int> watched() const;
  void ended(int pidfd);
  // When the next one is to be started again, and the starting of all whose time has come.
  std::optional<Clock::time_point> next_due() const;
  void start_due(Clock::time_point now);

  // The socket on which the gateway asks for connections to the SSH agent, to be polled; -1 if there is none.
  int asking() const;
  void answer(int asking);

  // The keeper's end of sbx-files' socket, once for each that is started; kUnavailable if there is none.
  Result<UniqueFd> take_files_control();
  pid_t files_pid() const;  // 0: none runs

  // Makes sbx-files serve what mounts.json of the runtime folder names: the daemon's word, in a file that neither the
  // worker nor the guest can reach. What is taken away is served by nobody when this returns without an error.
  Result<void> change_mounts();

 private:
  enum class Kind { kFiles, kGateway };
  struct Server {
    Kind kind;
    Start starter;
    Subprocess process;
    UniqueFd control;
    int restarts = 0;  // in quick succession
    Clock::time_point started = {};
    std::optional<Clock::time_point> due = {};  // when it is started again

    const char* name() const { return kind == Kind::kFiles ? "sbx-files" : "sbx-gateway"; }
  };

  Server* find(Kind kind);
  const Server* find(Kind kind) const;
  void add(Kind kind);
  Result<void> start(Server& server);
  void start_again(Server& server);
  static std::chrono::seconds pause_before(const Server& server);
  Result<void> unmount(Server& server, const Workspace& workspace);

  LaunchSpec& spec_;
  Listener listener_;
  Starts starts_;
  std::vector<Server> servers_;
};

}  // namespace sbx::keeper
