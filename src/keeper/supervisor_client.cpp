#include "keeper/supervisor_client.h"

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/use_awaitable.hpp>

namespace sbx::keeper {

namespace asio = boost::asio;
using wire::Awaitable;

SupervisorClient::SupervisorClient(const asio::any_io_executor& executor, UniqueFd socket)
    : socket_(executor, socket.release()), changed_(executor), turn_(executor) {
  boost::system::error_code ignored;
  socket_.non_blocking(true, ignored);
}

Awaitable<void> SupervisorClient::run() {
  for (;;) {
    auto received = receive_message(socket_.native_handle(), Descriptors::kAccepted);
    if (received) {
      handle(std::move(*received));
      continue;
    }
    if (received.error().code != ErrorCode::kTimeout) break;
    auto [error] =
        co_await socket_.async_wait(asio::posix::descriptor_base::wait_read, asio::as_tuple(asio::use_awaitable));
    if (error) break;
  }
  gone_ = true;
  changed_.notify();
}

void SupervisorClient::handle(Received received) {
  const Message& message = received.message;
  switch (static_cast<Event>(message.kind)) {
    case Event::kAnswer:
      answer_ = std::move(received);
      break;
    case Event::kMachineEnded:
      machine_end_ = ExitStatus{message.value, message.more};
      break;
    case Event::kFilesReplaced:
      ++files_replaced_;
      break;
    case Event::kProcesses:
      qemu_pid_ = message.value;
      files_pid_ = message.more;
      break;
    case Event::kPublish:
    case Event::kWithdraw:
    case Event::kFlow:
    case Event::kPacket:
      if (port_event_) port_event_(std::move(received));
      return;
  }
  changed_.notify();
}

Awaitable<Result<UniqueFd>> SupervisorClient::ask(Request request, std::int32_t value) {
  while (busy_) co_await turn_.wait();
  busy_ = true;
  answer_.reset();
  Result<void> result = send_message(socket_.native_handle(), message(request, value));
  while (result && !answer_ && !gone_) co_await changed_.wait();
  UniqueFd fd;
  if (result && !answer_) {
    result = fail(ErrorCode::kUnavailable, "the keeper's supervisor is gone");
  } else if (answer_) {
    result = result_of(answer_->message);
    fd = std::move(answer_->fd);
  }
  busy_ = false;
  turn_.notify();
  if (!result) co_return std::unexpected(std::move(result.error()));
  co_return fd;
}

void SupervisorClient::tell(Request request, std::int32_t value, std::string_view text) {
  (void)send_message(socket_.native_handle(), message(request, value, text));  // without a supervisor we end anyway
}

}  // namespace sbx::keeper
