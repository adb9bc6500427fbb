// ExecSession: one POST /exec, from its head to its status frame (docs/development/protocols.md).
//
// stdout and stderr are read only as fast as the peer takes them. After the main process has ended, output that is
// already in the pipes is still sent; what background children write later is thrown away, so that they neither keep
// the exec open nor die of SIGPIPE. A stream that is reset ends the command. Thread safety: none; the event loop only.
#pragma once

#include <boost/asio/posix/stream_descriptor.hpp>
#include <memory>
#include <optional>
#include <string>

#include "guest/async_event.h"
#include "guest/exec_plan.h"
#include "guest/guest.h"
#include "guest/spawn.h"
#include "wire/http2_session.h"
#include "wire/stdcopy.h"

namespace sbx::guest {

// The whole request; returns when the status has been sent or the stream has gone.
Awaitable<void> serve_exec(Guest& guest, std::shared_ptr<wire::Http2Stream> stream);

class ExecSession : public std::enable_shared_from_this<ExecSession> {
 public:
  // `input` is what was read of stdin along with the head.
  ExecSession(Guest& guest, std::shared_ptr<wire::Http2Stream> stream, ExecHead head, std::string input);

  Awaitable<void> run();
  // kConflict once the command has ended, or before it has started.
  Result<void> signal(int number);
  Result<void> resize(unsigned short rows, unsigned short cols);

 private:
  using Descriptor = boost::asio::posix::stream_descriptor;
  struct Output {
    Output(boost::asio::any_io_executor executor, wire::StdStream which) : source(executor), stream(which) {}
    Descriptor source;
    wire::StdStream stream;
    bool grace_over = false;
    std::size_t budget = 0;  // bytes still to be sent once grace_over
  };
  using Self = std::shared_ptr<ExecSession>;

  Awaitable<std::optional<ExecFailure>> start();
  Result<void> open_pipes(SpawnPlan& plan, UniqueFd (&child_ends)[3]);
  Result<void> open_terminal(SpawnPlan& plan, UniqueFd (&child_ends)[3]);
  Awaitable<void> drain_outputs();
  Awaitable<void> send_status(std::string status);
  void leave_group();
  static Awaitable<void> tidy_up(Guest& guest, std::string group);
  static Awaitable<void> pump_input(Self self);
  static Awaitable<void> pump_output(Self self, Output& output);
  static Awaitable<void> discard_output(Self self, Output& output);
  static Awaitable<void> watch_stream(Self self);

  Guest& guest_;
  std::shared_ptr<wire::Http2Stream> stream_;
  ExecHead head_;
  std::string input_;
  std::string group_;  // empty before there is one
  Descriptor sink_;    // stdin's write end, or the terminal
  Output stdout_;
  Output stderr_;
  int open_outputs_ = 0;
  AsyncMutex writing_;
  AsyncEvent outputs_done_;
  std::shared_ptr<Child> child_;
};

}  // namespace sbx::guest
