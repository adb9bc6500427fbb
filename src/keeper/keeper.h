// Keeper: one running sandbox, as the worker knows it: QMP, the guest's control port, its commands, and the socket that
// sbxd speaks to. Runs in the worker's jail; for everything that needs rights it asks its supervisor.
// One executor; create it, co_spawn run() once, and run the io_context until it stops.
#pragma once

#include <boost/asio/io_context.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <memory>
#include <string>

#include "keeper/exec_table.h"
#include "keeper/files_barrier.h"
#include "keeper/guest_link.h"
#include "keeper/published_ports.h"
#include "keeper/supervisor_client.h"
#include "keeper/worker_spec.h"
#include "vm/machine_control.h"

namespace sbx::keeper {

class Keeper {
 public:
  // `listener`: keeper.sock.
  Keeper(boost::asio::io_context& io, WorkerSpec spec, SupervisorClient& supervisor, UniqueFd listener);

  // Starts the sandbox (see start_machine), tells the supervisor how that went, serves until the sandbox has ended.
  // Stops the io_context.
  wire::Awaitable<void> run(UniqueFd qmp, UniqueFd state);

 private:
  // kSpare: ready, its machine paused, nobody's.
  enum class State { kStarting, kSpare, kRunning, kStopping };

  wire::Awaitable<Result<void>> start(UniqueFd qmp, UniqueFd state);
  wire::Awaitable<Result<void>> greet_guest(std::chrono::milliseconds deadline);
  wire::Awaitable<Result<void>> make_ready();
  wire::Awaitable<Result<void>> lay_by();
  wire::Awaitable<Result<void>> adopt(nlohmann::json request);
  wire::Awaitable<void> answer_adoption(std::shared_ptr<wire::Http2Stream> stream);
  void begin_to_run();
  wire::Awaitable<Result<void>> mount_workspaces();
  wire::Awaitable<Result<void>> add_mount(nlohmann::json request);
  wire::Awaitable<Result<void>> remove_mount(nlohmann::json request);
  void forget_workspaces(const std::vector<Workspace>& list);
  wire::Awaitable<void> change_mounts(std::shared_ptr<wire::Http2Stream> stream, bool add);
  wire::Awaitable<void> watch_machine();
  wire::Awaitable<void> watch_files_server();
  wire::Awaitable<void> watch_guest();
  wire::Awaitable<void> watch_disk();
  wire::Awaitable<void> park_when_idle();
  wire::Awaitable<void> accept();
  wire::Awaitable<void> handle(std::shared_ptr<wire::Http2Stream> stream, std::weak_ptr<wire::Http2Session> daemon);
  wire::Awaitable<void> stop(std::shared_ptr<wire::Http2Stream> stream);
  wire::Awaitable<Result<bool>> stop_machine(std::string mode);
  wire::Awaitable<Result<void>> stop_clean();
  wire::Awaitable<nlohmann::json> status();
  const char* state_word() const;
  nlohmann::json idle_since() const;
  void leave(const std::string& message);

  boost::asio::io_context& io_;
  WorkerSpec spec_;
  SupervisorClient& supervisor_;
  GuestLink guest_;
  FilesBarrier files_;
  ExecTable execs_;
  PublishedPorts ports_;
  State state_ = State::kStarting;
  std::chrono::system_clock::time_point running_since_ = {};
  bool disk_full_ = false;
  bool files_connected_ = false;  // to the sbx-files that runs
  bool guest_has_files_ = false;  // a files session, in which workspaces come and go
  std::unique_ptr<vm::MachineControl> machine_;
  boost::asio::local::stream_protocol::acceptor acceptor_;
};

}  // namespace sbx::keeper
