#include "sandbox/port_orders.h"

#include <sys/socket.h>

#include <boost/asio/posix/stream_descriptor.hpp>

#include "sandbox/gateway_link.h"

namespace sbx::sandbox {
namespace asio = boost::asio;

namespace {
constexpr std::chrono::seconds kDeadline{5};
}

Awaitable<Result<void>> order_ports(std::filesystem::path runtime_folder, keeper::Message order, int fd) {
  const auto executor = co_await asio::this_coro::executor;
  SBX_CO_TRY(auto socket, connect_to_socket(runtime_folder / keeper::kPortsSocket, SOCK_SEQPACKET),
             "reaching the sandbox's keeper");
  SBX_CO_CHECK(keeper::send_message(socket.get(), order, fd), "reaching the sandbox's keeper");
  asio::posix::stream_descriptor answer(executor, socket.release());
  asio::steady_timer timer(executor, kDeadline);
  timer.async_wait([&answer](boost::system::error_code error) {
    boost::system::error_code ignored;
    if (!error) answer.cancel(ignored);
  });
  boost::system::error_code error;
  co_await answer.async_wait(asio::posix::descriptor_base::wait_read, asio::redirect_error(asio::use_awaitable, error));
  const bool late = timer.cancel() == 0;
  if (error || late) co_return fail(ErrorCode::kTimeout, "the sandbox's keeper did not answer about a port");
  SBX_CO_TRY(const auto received, keeper::receive_message(answer.native_handle(), keeper::Descriptors::kRefused),
             "asking the sandbox's keeper");
  co_return keeper::result_of(received.message);
}

}  // namespace sbx::sandbox
