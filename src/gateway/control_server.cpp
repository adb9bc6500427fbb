#include "gateway/control_server.h"

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <nlohmann/json.hpp>

namespace sbx::gateway {

namespace asio = boost::asio;
using StreamPtr = std::shared_ptr<wire::Http2Stream>;

namespace {

constexpr auto kToken = asio::as_tuple(asio::use_awaitable);
constexpr std::size_t kMaxConfig = 16U << 20U;

Awaitable<void> put_config(Gateway& gateway, StreamPtr stream) {
  auto body = co_await wire::read_body(*stream, kMaxConfig);
  if (!body) co_return co_await wire::send_error(*stream, body.error());
  auto config = GatewayConfig::parse(std::move(*body));
  if (!config) co_return co_await wire::send_error(*stream, config.error());
  gateway.configure(std::move(*config));
  co_await wire::send_json(*stream, 200, "{}");
}

Awaitable<void> get_log(Gateway& gateway, StreamPtr stream) {
  wire::HeaderList headers;
  headers.emplace_back("content-type", "application/x-ndjson");
  if (!stream->respond(200, std::move(headers), false)) co_return;
  std::uint64_t next = 0;
  for (;;) {
    const auto lines = co_await gateway.log().read(next);
    if (!co_await stream->write(lines)) co_return;
  }
}

Awaitable<void> get_status(Gateway& gateway, StreamPtr stream, ControlFacts facts) {
  nlohmann::json status;
  status["configured"] = gateway.config() != nullptr;
  status["connections"] = gateway.open_count();
  status["secrets_locked"] = facts.secrets_locked;
  co_await wire::send_json(*stream, 200, status.dump());
}

Awaitable<void> handle(Gateway& gateway, StreamPtr stream, ControlFacts facts) {
  const auto& request = stream->request();
  if (request.method == "PUT" && request.path == "/config") co_return co_await put_config(gateway, std::move(stream));
  if (request.method == "GET" && request.path == "/log") co_return co_await get_log(gateway, std::move(stream));
  if (request.method == "GET" && request.path == "/status") {
    co_return co_await get_status(gateway, std::move(stream), facts);
  }
  const Error error{ErrorCode::kNotFound, "there is no " + request.method + " " + request.path, {}};
  co_await wire::send_error(*stream, error);
}

}  // namespace

Awaitable<void> serve_control(Gateway& gateway, asio::local::stream_protocol::acceptor acceptor, ControlFacts facts) {
  for (;;) {
    auto [error, socket] = co_await acceptor.async_accept(kToken);
    if (error) co_return;
    auto session = wire::Http2Session::server(
        asio::posix::stream_descriptor(gateway.executor(), socket.release()),
        [&gateway, facts](StreamPtr stream) -> Awaitable<void> { return handle(gateway, std::move(stream), facts); });
    asio::co_spawn(
        gateway.executor(), [session]() -> Awaitable<void> { (void)co_await session->run(); }, asio::detached);
  }
}

}  // namespace sbx::gateway
