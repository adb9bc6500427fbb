#include "vm/process_exit.h"

#include <fcntl.h>
#include <poll.h>

#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>

namespace sbx::vm {

namespace asio = boost::asio;

Awaitable<bool> process_ended(int pidfd, std::chrono::steady_clock::duration deadline) {
  const int copy = ::fcntl(pidfd, F_DUPFD_CLOEXEC, 3);
  if (copy < 0) co_return true;  // reaped already, or never started
  const auto executor = co_await asio::this_coro::executor;
  asio::posix::stream_descriptor descriptor(executor, copy);
  asio::steady_timer timer(executor);
  const auto now = std::chrono::steady_clock::now();
  const auto never = std::chrono::steady_clock::time_point::max();
  timer.expires_at(deadline < never - now ? now + deadline : never);
  timer.async_wait([&descriptor](const boost::system::error_code& error) {
    if (error) return;
    boost::system::error_code ignored;
    descriptor.cancel(ignored);
  });
  boost::system::error_code error;
  co_await descriptor.async_wait(asio::posix::descriptor_base::wait_read,
                                 asio::redirect_error(asio::use_awaitable, error));
  // An expiry that is queued already would reach a descriptor that is gone: let it run first.
  if (timer.cancel() == 0 && !error) {
    asio::steady_timer settle(executor, std::chrono::steady_clock::duration::zero());
    boost::system::error_code ignored;
    co_await settle.async_wait(asio::redirect_error(asio::use_awaitable, ignored));
  }
  pollfd state{copy, POLLIN, 0};
  co_return ::poll(&state, 1, 0) > 0;
}

}  // namespace sbx::vm
