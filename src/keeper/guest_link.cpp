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
  SBX_CO_TRY(auto fd, co_await connector_(), "connecting to the control port");
  asio::posix::stream_descriptor port(executor_, fd.release());
  SBX_CO_CHECK(co_await wire::resync_as_host(port, deadline), "resynchronising the control port");
  session_ = wire::Http2Session::client(std::move(port));
  auto session = session_;
  asio::co_spawn(
      executor_, [session]() -> wire::Awaitable<void> { (void)co_await session->run(); }, asio::detached);
  co_return Result<void>{};
}

void GuestLink::disconnect() {
  if (session_) session_->close();
  session_.reset();
}

wire::Awaitable<Result<json>> GuestLink::call(std::string method, std::string path, json body, Duration deadline) {
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

Result<std::shared_ptr<wire::Http2Stream>> GuestLink::open(wire::Http2Head head) {
  if (!connected()) return fail(ErrorCode::kUnavailable, "there is no connection to the guest");
  return session_->open(std::move(head), false);
}

}  // namespace sbx::keeper
