#include "gateway/http2_relay.h"

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>

namespace sbx::gateway {

namespace asio = boost::asio;
using wire::Http2Head;
using wire::Http2Limits;
using wire::Http2Session;
using wire::Http2Stream;

namespace {

using StreamPtr = std::shared_ptr<Http2Stream>;

constexpr std::uint32_t kInternalError = 2;  // RFC 9113 section 7
constexpr std::uint32_t kHttp11Required = 13;

Http2Limits guest_limits() {
  Http2Limits limits;
  limits.max_concurrent_streams = 128;
  limits.stream_window = 128U << 10U;
  limits.io_buffer = 32U << 10U;
  return limits;
}
Http2Limits server_limits() {
  Http2Limits limits = guest_limits();
  limits.stream_window = 512U << 10U;
  limits.max_resets_per_second = 1000;
  return limits;
}

// The requests of one connection.
class Relay : public std::enable_shared_from_this<Relay> {
 public:
  Relay(Gateway& gateway, HttpOrigin origin) : gateway_(gateway), origin_(std::move(origin)) {}
  Awaitable<void> run(std::shared_ptr<ByteStream> guest, std::shared_ptr<ByteStream> server);

 private:
  Awaitable<void> handle(StreamPtr guest);
  Awaitable<void> answer(StreamPtr guest, int status, std::string body);
  Awaitable<void> upload(StreamPtr guest, StreamPtr server, std::shared_ptr<HttpExchange> exchange);
  Awaitable<Result<void>> respond(StreamPtr guest, StreamPtr server, HttpExchange& exchange);

  Gateway& gateway_;
  HttpOrigin origin_;
  std::shared_ptr<Http2Session> server_;
};

Awaitable<void> Relay::run(std::shared_ptr<ByteStream> guest, std::shared_ptr<ByteStream> server) {
  auto self = shared_from_this();
  const auto handler = [self](StreamPtr stream) -> Awaitable<void> { return self->handle(std::move(stream)); };
  auto session = Http2Session::server(std::move(guest), gateway_.executor(), handler, guest_limits());
  if (server) {
    server_ = Http2Session::client(std::move(server), gateway_.executor(), server_limits());
    asio::co_spawn(
        gateway_.executor(),
        [upstream = server_, session]() -> Awaitable<void> {
          (void)co_await upstream->run();
          session->close();
        },
        asio::detached);
  }
  (void)co_await session->run();
  // The handler holds this object, and the session holds the handler.
  if (server_) server_->close();
}

Awaitable<void> Relay::answer(StreamPtr guest, int status, std::string body) {
  wire::HeaderList headers;
  headers.emplace_back("content-type", "application/json");
  headers.emplace_back("content-length", std::to_string(body.size()));
  headers.emplace_back("cache-control", "no-store");
  const bool head = guest->request().method == "HEAD";
  if (!guest->respond(status, std::move(headers), head)) co_return;
  if (!head && !co_await guest->write(body)) co_return;
  (void)co_await guest->finish();
}

Awaitable<void> Relay::upload(StreamPtr guest, StreamPtr server, std::shared_ptr<HttpExchange> exchange) {
  for (;;) {
    const auto piece = co_await guest->read_chunk();
    if (!piece) {
      server->reset();
      co_return;
    }
    const auto out = piece->empty() ? exchange->request_end() : exchange->request_piece(*piece);
    if (!out.empty() && !co_await server->write(out)) co_return;
    if (piece->empty()) break;
  }
  (void)co_await server->finish(guest->trailers());
}

Awaitable<Result<void>> Relay::respond(StreamPtr guest, StreamPtr server, HttpExchange& exchange) {
  Http2Head head;
  for (;;) {
    SBX_CO_TRY(head, co_await server->response(), "waiting for the response");
    if (head.status >= 200) break;
    exchange.response_fields(head.headers);
    SBX_CO_CHECK(guest->inform(head.status, std::move(head.headers)), "passing on an informational response");
  }
  SBX_CO_TRY(const bool changes, exchange.response_head(head.status, head.headers), "reading the response");
  if (changes) remove_header(head.headers, "content-length");
  const bool empty = server->at_end() && server->trailers().empty();
  SBX_CO_CHECK(guest->respond(head.status, std::move(head.headers), empty && !changes), "passing on the response");
  if (empty && !changes) co_return co_await guest->finish();
  for (;;) {
    SBX_CO_TRY(const auto piece, co_await server->read_chunk(), "reading the response");
    SBX_CO_TRY(const auto out, piece.empty() ? exchange.response_end() : exchange.response_piece(piece),
               "reading the response");
    if (!out.empty()) SBX_CO_CHECK(co_await guest->write(out), "passing on the response");
    if (piece.empty()) break;
  }
  auto trailers = server->trailers();
  exchange.response_fields(trailers);
  co_return co_await guest->finish(std::move(trailers));
}

Awaitable<void> Relay::handle(StreamPtr guest) {
  auto self = shared_from_this();
  const auto& asked = guest->request();
  auto exchange = std::make_shared<HttpExchange>(gateway_, origin_);
  HttpRequestHead head;
  head.method = asked.method;
  head.scheme = asked.scheme;
  head.authority = asked.authority;
  head.path = asked.path;
  head.headers = asked.headers;
  if (const auto* host = find_header(head.headers, "host"); host != nullptr) {
    if (head.authority.empty()) head.authority = *host;
    // Two names for one request: a server may believe either.
    if (head.authority != *host) co_return guest->reset(1);
    remove_header(head.headers, "host");
  }
  const auto decision = exchange->judge(head);
  if (!decision.allowed) co_return co_await answer(guest, 403, denial_body(exchange->judged(), decision));
  if (origin_.failure) {
    co_return co_await answer(guest, failure_status(*origin_.failure), failure_body(*origin_.failure));
  }
  if (head.method == "CONNECT") co_return guest->reset(kHttp11Required);
  if (origin_.target.host == "localhost") head.authority = "localhost:" + std::to_string(origin_.target.port);
  const Gateway::Open open(gateway_, exchange->judged(), [guest] { guest->reset(); });
  if (exchange->prepare(head)) remove_header(head.headers, "content-length");

  Http2Head out;
  out.method = head.method;
  out.scheme = origin_.tls ? "https" : "http";
  out.authority = head.authority;
  out.path = head.path;
  out.headers = std::move(head.headers);
  const bool no_body = guest->at_end() && guest->trailers().empty();
  auto server = server_ ? server_->open(std::move(out), no_body)
                        : Result<StreamPtr>(fail(ErrorCode::kUnavailable, "there is no server"));
  if (!server) co_return co_await answer(guest, 502, failure_body(server.error()));
  // A guest that gives up takes the server's stream along.
  asio::co_spawn(
      gateway_.executor(),
      [guest, upstream = *server]() -> Awaitable<void> {
        co_await guest->closed();
        upstream->reset();
      },
      asio::detached);
  if (!no_body) {
    asio::co_spawn(
        gateway_.executor(),
        [self, guest, upstream = *server, exchange]() -> Awaitable<void> {
          return self->upload(guest, upstream, exchange);
        },
        asio::detached);
  }
  const auto passed = co_await respond(guest, *server, *exchange);
  if (!passed) {
    const auto code = (*server)->reset_code();
    guest->reset(code != 0 ? code : kInternalError);
  }
}

}  // namespace

Awaitable<void> relay_http2(Gateway& gateway, HttpOrigin origin, std::shared_ptr<ByteStream> guest,
                            std::shared_ptr<ByteStream> server) {
  auto relay = std::make_shared<Relay>(gateway, std::move(origin));
  co_await relay->run(std::move(guest), std::move(server));
}

}  // namespace sbx::gateway
