#include "keeper/guest_link.h"

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/experimental/awaitable_operators.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>

#include "wire/resync.h"

namespace sbx::keeper {

namespace asio = boost::asio;
using namespace asio::experimental::awaitable_operators;
using nlohmann::json;

wire::Awaitable<Result<void>> GuestLink::connect(std::chrono::milliseconds deadline) {
  disconnect();
  SBX_CO_TRY(const auto hold, co_await parking_.wake(), "connecting to the control port");
  SBX_CO_TRY(auto fd, co_await connector_(), "connecting to the control port");
  asio::posix::stream_descriptor port(executor_, fd.release());
  SBX_CO_CHECK(co_await wire::resync_as_host(port, deadline), "resynchronising the control port");
  session_ = wire::Http2Session::client(std::move(port));
  auto session = session_;
  asio::co_spawn(
      executor_,
      [this, session]() -> wire::Awaitable<void> {
        (void)co_await session->run();
        changed_.notify();
      },
      asio::detached);
  changed_.notify();
  co_return Result<void>{};
}

void GuestLink::disconnect() {
  if (session_) session_->close();
  session_.reset();
  changed_.notify();
}

wire::Awaitable<void> GuestLink::lost() {
  while (connected()) co_await changed_.wait();
}

wire::Awaitable<void> GuestLink::connected_within(Duration deadline) {
  asio::steady_timer timer(executor_, deadline);
  while (!connected() && !given_up_ && timer.expiry() > std::chrono::steady_clock::now())
    co_await (changed_.wait() || timer.async_wait(asio::as_tuple(asio::use_awaitable)));
}

void GuestLink::give_up() {
  given_up_ = true;
  changed_.notify();
}

wire::Awaitable<Result<json>> GuestLink::call(std::string method, std::string path, json body, Duration deadline) {
  SBX_CO_TRY(const auto hold, co_await parking_.wake(), "calling the guest");
  co_return co_await call_now(std::move(method), std::move(path), std::move(body), deadline);
}

wire::Awaitable<Result<json>> GuestLink::call_now(std::string method, std::string path, json body, Duration deadline) {
  if (!session_) co_return fail(ErrorCode::kUnavailable, "there is no connection to the guest");
  auto session = session_;
  const std::string what = method + " " + path;
  const std::string text = body.is_null() ? std::string() : body.dump(-1, ' ', false, json::error_handler_t::replace);
  asio::steady_timer timer(executor_, deadline);
  auto first = co_await (wire::call(*session, std::move(method), std::move(path), text) ||
                         timer.async_wait(asio::as_tuple(asio::use_awaitable)));
  if (first.index() == 1) co_return fail(ErrorCode::kTimeout, "the guest did not answer " + what);
  auto answer = std::get<0>(std::move(first));
  if (!answer) co_return std::unexpected(std::move(answer.error()));
  auto document = json::parse(*answer, nullptr, false);
  if (!document.is_object()) co_return fail(ErrorCode::kInvalid, "the guest answered " + what + " with no JSON object");
  co_return document;
}

wire::Awaitable<Result<GuestLink::OpenStream>> GuestLink::open(wire::Http2Head head) {
  OpenStream opened;
  auto awake = co_await parking_.wake();
  if (given_up_) co_return fail(ErrorCode::kConflict, "the virtual machine has ended");
  SBX_CO_TRY(opened.hold, std::move(awake), "calling the guest");
  if (!connected()) co_return fail(ErrorCode::kUnavailable, "there is no connection to the guest");
  SBX_CO_TRY(opened.stream, session_->open(std::move(head), false), "calling the guest");
  co_return std::move(opened);
}

}  // namespace sbx::keeper
