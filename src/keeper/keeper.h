// Keeper: one running sandbox: its VM, its file server, its commands, and the socket that sbxd speaks to.
// One executor; create it, co_spawn run() once, and run the io_context until it stops.
#pragma once

#include <boost/asio/io_context.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <functional>
#include <memory>
#include <set>
#include <string>

#include "keeper/exec_table.h"
#include "keeper/guest_link.h"
#include "keeper/launch_spec.h"
#include "vm/virtual_machine.h"

namespace sbx::keeper {

class Keeper {
 public:
  Keeper(boost::asio::io_context& io, LaunchSpec spec);

  // Starts the sandbox, reports readiness through `ready` (an Error if it failed), serves until the sandbox has ended.
  // Leaves exit.json. Stops the io_context.
  wire::Awaitable<void> run(std::function<void(Result<std::int64_t>)> ready);

 private:
  enum class State { kStarting, kRunning, kStopping };

  wire::Awaitable<Result<void>> start();
  wire::Awaitable<Result<void>> greet_guest(std::chrono::milliseconds deadline);
  wire::Awaitable<Result<void>> mount_workspaces();
  wire::Awaitable<void> watch_machine();
  wire::Awaitable<void> watch_files_server();
  wire::Awaitable<void> watch_guest();
  wire::Awaitable<void> accept();
  wire::Awaitable<void> handle(std::shared_ptr<wire::Http2Stream> stream, std::weak_ptr<wire::Http2Session> daemon);
  wire::Awaitable<void> stop(std::shared_ptr<wire::Http2Stream> stream);
  wire::Awaitable<Result<bool>> stop_machine(std::string mode);
  wire::Awaitable<Result<void>> stop_clean();
  wire::Awaitable<nlohmann::json> status();
  void leave(std::string reason, std::string message, bool kept_memory);

  boost::asio::io_context& io_;
  LaunchSpec spec_;
  GuestLink guest_;
  ExecTable execs_;
  State state_ = State::kStarting;
  std::unique_ptr<vm::VirtualMachine> machine_;
  Subprocess files_;
  std::unique_ptr<boost::asio::posix::stream_descriptor> files_watch_;
  std::unique_ptr<boost::asio::posix::stream_descriptor> machine_watch_;
  boost::asio::local::stream_protocol::acceptor acceptor_;
  int files_restarts_ = 0;
};

}  // namespace sbx::keeper
