// SupervisorClient: the worker's end of the socket to its supervisor (supervision.h). One executor.
#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <functional>
#include <optional>
#include <string>

#include "base/command.h"
#include "base/result.h"
#include "keeper/supervision.h"
#include "wire/http2_session.h"
#include "wire/signal.h"

namespace sbx::keeper {

class SupervisorClient {
 public:
  SupervisorClient(const boost::asio::any_io_executor& executor, UniqueFd socket);

  // Reads answers and events until the supervisor is gone. Once, as a coroutine of its own.
  wire::Awaitable<void> run();
  // A request that is answered; the descriptor is invalid where none comes along. Several may wait, one is asked.
  wire::Awaitable<Result<UniqueFd>> ask(Request request, std::int32_t value = 0);
  // A request that is not.
  void tell(Request request, std::int32_t value = 0, std::string_view text = {});

  // What is told of published ports goes there (PublishedPorts::handle).
  void on_port_event(std::function<void(Received)> handler) { port_event_ = std::move(handler); }

  // Set once the machine has ended, by itself or because it was told to.
  const std::optional<ExitStatus>& machine_end() const { return machine_end_; }
  void forget_machine_end() { machine_end_.reset(); }  // another one has been started
  // Servers of the files port that replaced another, so far.
  int files_replaced() const { return files_replaced_; }
  pid_t qemu_pid() const { return qemu_pid_; }    // 0: unknown
  pid_t files_pid() const { return files_pid_; }  // 0: none
  // Notified when any of these has changed.
  wire::Signal& changed() { return changed_; }

 private:
  void handle(Received received);

  boost::asio::posix::stream_descriptor socket_;
  wire::Signal changed_;
  wire::Signal turn_;
  bool busy_ = false;
  bool gone_ = false;
  std::optional<Received> answer_;
  std::optional<ExitStatus> machine_end_;
  std::function<void(Received)> port_event_;
  int files_replaced_ = 0;
  pid_t qemu_pid_ = 0;
  pid_t files_pid_ = 0;
};

}  // namespace sbx::keeper
