#include "gateway/http1_relay.h"

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>

#include "gateway/deadline.h"

namespace sbx::gateway {

namespace asio = boost::asio;

namespace {

// What is read of a refused request's body, so that the answer is not lost to a connection reset.
constexpr std::size_t kMaxDrained = 1U << 20U;
constexpr std::chrono::seconds kDrainFor{2};

bool wants_close(const Http1Request& request) {
  return request.http10 || header_has_token(request.headers, "connection", "close");
}

bool is_websocket(const HeaderList& headers) {
  return header_has_token(headers, "connection", "upgrade") && header_has_token(headers, "upgrade", "websocket");
}

void keep_upgrade(HeaderList& headers) {
  headers.emplace_back("connection", "Upgrade");
  headers.emplace_back("upgrade", "websocket");
}

HttpRequestHead head_of(const Http1Request& request) {
  HttpRequestHead head;
  head.method = request.method;
  head.path = request.target;
  head.headers = request.headers;
  if (const auto* host = find_header(head.headers, "host")) head.authority = *host;
  remove_header(head.headers, "host");
  return head;
}

}  // namespace

// The request's body on its way, which may outlast the response.
struct Http1Relay::Upload {
  explicit Upload(const asio::any_io_executor& executor) : changed(executor) {}
  std::shared_ptr<Http1Input> from;
  Server to;
  HttpExchange* exchange = nullptr;  // null once the exchange is over
  bool chunked = false;
  bool done = false;
  wire::Signal changed;
};

Awaitable<void> Http1Relay::close() { (void)co_await guest_->finish(); }

Awaitable<std::optional<Http1Request>> Http1Relay::next() {
  auto self = shared_from_this();
  const auto head = co_await input_->read_head();
  if (head && head->empty()) co_return std::nullopt;
  auto request = head ? parse_request_head(*head) : Result<Http1Request>(std::unexpected(head.error()));
  if (request) co_return std::move(*request);
  if (request.error().code == ErrorCode::kInvalid) {
    Http1Request nothing;
    nothing.http10 = true;
    (void)co_await answer(nothing, 400, failure_body(request.error()));
  }
  co_return std::nullopt;
}

Awaitable<void> Http1Relay::serve(HttpOrigin origin, std::shared_ptr<ByteStream> server) {
  auto self = shared_from_this();
  Server input;
  if (server) input = std::make_shared<Http1Input>(std::move(server), gateway_.executor());
  const Connect connect = [input](bool fresh) -> Awaitable<Result<Server>> {
    if (fresh || !input) co_return fail(ErrorCode::kUnavailable, "the server closed the connection");
    co_return input;
  };
  for (;;) {
    if (input) {
      // A server that closes an idle connection closes the guest's.
      input->watch([self] {
        asio::co_spawn(
            self->gateway_.executor(), [self]() -> Awaitable<void> { return self->close(); }, asio::detached);
      });
    }
    auto request = co_await next();
    if (!request) break;
    // Only a proxy is asked for absolute forms and tunnels, and this is none.
    if (request->method == "CONNECT" || request->target.find("://") < request->target.find_first_of("/?")) {
      if (request->method == "CONNECT" || !request->target.starts_with("http")) {
        const Error error{ErrorCode::kInvalid, "this is not a proxy", {}};
        (void)co_await answer(*request, 405, failure_body(error));
        break;
      }
      const auto authority = request->target.find("://") + 3;
      const auto path = std::min(request->target.find_first_of("/?", authority), request->target.size());
      set_header(request->headers, "host", request->target.substr(authority, path - authority));
      request->target = path < request->target.size() && request->target[path] == '/'
                            ? request->target.substr(path)
                            : "/" + request->target.substr(path);
    }
    if (!co_await exchange(origin, std::move(*request), connect, false)) break;
  }
  co_await close();
  if (input) input->stream().reset();
}

Awaitable<bool> Http1Relay::drain(const Http1Request& request) {
  const auto length = request_body(request);
  if (!length || length->kind == BodyLength::Kind::kNone) co_return length.has_value();
  if (find_header(request.headers, "expect") != nullptr) co_return false;
  std::shared_ptr<ByteStream> guest = guest_;
  const Deadline deadline(gateway_.executor(), kDrainFor, [guest] { guest->reset(); });
  input_->start_body(*length);
  std::size_t drained = 0;
  for (;;) {
    const auto piece = co_await input_->read_body();
    if (!piece) co_return false;
    if (piece->empty()) co_return true;
    drained += piece->size();
    if (drained > kMaxDrained) co_return false;
  }
}

Awaitable<bool> Http1Relay::answer(const Http1Request& request, int status, std::string body) {
  auto self = shared_from_this();
  const bool close = wants_close(request) || find_header(request.headers, "expect") != nullptr;
  Http1Response response;
  response.status = status;
  response.reason = status == 403 ? "Forbidden" : status == 400 ? "Bad Request" : "Gateway";
  response.headers.emplace_back("content-type", "application/json");
  response.headers.emplace_back("content-length", std::to_string(body.size()));
  response.headers.emplace_back("cache-control", "no-store");
  if (close) response.headers.emplace_back("connection", "close");
  auto text = write_head(response);
  if (request.method != "HEAD") text += body;
  if (!co_await guest_->write(text)) co_return false;
  if (request.method.empty()) co_return false;
  co_return co_await drain(request) && !close;
}

Awaitable<void> Http1Relay::upload_body(std::shared_ptr<Upload> upload) {
  auto self = shared_from_this();
  bool sent = true;
  for (;;) {
    auto piece = co_await upload->from->read_body();
    if (!piece || upload->exchange == nullptr) {
      upload->to->stream().reset();
      break;
    }
    const bool last = piece->empty();
    std::string out = last ? upload->exchange->request_end() : upload->exchange->request_piece(*piece);
    if (upload->chunked && !out.empty()) out = write_chunk(out);
    if (upload->chunked && last) out += write_last_chunk(upload->from->trailers());
    // A server that reads no more may still answer.
    if (sent && !out.empty() && !co_await upload->to->stream().write(out)) sent = false;
    if (last) {
      upload->done = sent;
      break;
    }
    if (!sent) break;
  }
  upload->changed.notify();
}

Awaitable<Result<Http1Relay::Server>> Http1Relay::send_request(HttpExchange& exchange, const Http1Request& request,
                                                               HttpRequestHead head, const Connect& connect, bool fresh,
                                                               std::shared_ptr<Upload>& upload) {
  SBX_CO_TRY(auto server, co_await connect(fresh), "connecting");
  SBX_CO_TRY(const auto length, request_body(request), "sending the request");
  const bool websocket = is_websocket(head.headers);
  const bool reframe = exchange.prepare(head);
  remove_hop_headers(head.headers);
  if (websocket) keep_upgrade(head.headers);
  const bool body = length.kind != BodyLength::Kind::kNone;
  const bool chunked = body && (reframe || length.kind == BodyLength::Kind::kChunked);
  if (chunked) {
    remove_header(head.headers, "content-length");
    head.headers.emplace_back("transfer-encoding", "chunked");
  }
  Http1Request out;
  out.method = head.method;
  out.target = head.path;
  out.headers.emplace_back("host", head.authority);
  out.headers.insert(out.headers.end(), head.headers.begin(), head.headers.end());
  auto text = write_head(out);
  const auto written = co_await server->stream().write(text);
  wipe(text);
  if (!written) co_return std::unexpected(written.error());
  upload = std::make_shared<Upload>(gateway_.executor());
  upload->from = input_;
  upload->to = server;
  upload->exchange = &exchange;
  upload->chunked = chunked;
  upload->done = !body;
  if (body) {
    input_->start_body(length);
    asio::co_spawn(
        gateway_.executor(),
        [self = shared_from_this(), upload]() -> Awaitable<void> { return self->upload_body(upload); }, asio::detached);
  }
  co_return server;
}

// Passes informational responses on and returns the final one (or 101).
Awaitable<Result<Http1Response>> Http1Relay::response_head(HttpExchange& exchange, const Http1Request& request,
                                                           Server server) {
  for (;;) {
    SBX_CO_TRY(const auto head, co_await server->read_head(), "waiting for the response");
    if (head.empty()) co_return fail(ErrorCode::kUnavailable, "the server closed the connection without an answer");
    auto response = parse_response_head(head);
    // What a server gets wrong is not the guest's bad request.
    if (!response)
      co_return fail(ErrorCode::kUnavailable, "the server's answer is malformed: " + response.error().message);
    if (response->status >= 200 || response->status == 101) co_return std::move(*response);
    if (request.http10) continue;
    remove_hop_headers(response->headers);
    exchange.response_fields(response->headers);
    SBX_CO_CHECK(co_await guest_->write(write_head(*response)), "passing on an informational response");
  }
}

Awaitable<Result<Http1Response>> Http1Relay::attempt(HttpExchange& exchange, const Http1Request& request,
                                                     HttpRequestHead head, const Connect& connect, bool fresh,
                                                     Server& server, std::shared_ptr<Upload>& upload) {
  SBX_CO_TRY(server, co_await send_request(exchange, request, std::move(head), connect, fresh, upload),
             "sending the request");
  co_return co_await response_head(exchange, request, server);
}

Awaitable<Result<void>> Http1Relay::response_body(HttpExchange& exchange, Server server, bool chunked) {
  for (;;) {
    SBX_CO_TRY(auto piece, co_await server->read_body(), "reading the response");
    const bool last = piece.empty();
    SBX_CO_TRY(auto out, last ? exchange.response_end() : exchange.response_piece(piece), "reading the response");
    if (chunked && !out.empty()) out = write_chunk(out);
    if (chunked && last) {
      auto trailers = server->trailers();
      exchange.response_fields(trailers);
      out += write_last_chunk(trailers);
    }
    if (!out.empty()) SBX_CO_CHECK(co_await guest_->write(out), "passing on the response");
    if (last) co_return Result<void>{};
  }
}

Awaitable<void> Http1Relay::switch_protocols(HttpExchange& exchange, Server server) {
  auto self = shared_from_this();
  auto up = [self, server]() -> Awaitable<void> {
    auto piece = self->input_->take_rest();
    std::vector<char> buffer(16U << 10U);
    for (;;) {
      if (!piece.empty() && !co_await server->stream().write(piece)) break;
      const auto n = co_await self->guest_->read_some(buffer);
      if (!n) {
        server->stream().reset();
        co_return;
      }
      if (*n == 0) break;
      piece.assign(buffer.data(), *n);
    }
    (void)co_await server->stream().finish();
  };
  asio::co_spawn(gateway_.executor(), std::move(up), asio::detached);
  auto piece = server->take_rest();
  std::vector<char> buffer(16U << 10U);
  for (;;) {
    const auto out = exchange.response_piece(piece);
    if (!out || (!out->empty() && !co_await guest_->write(*out))) break;
    const auto n = co_await server->stream().read_some(buffer);
    if (!n || *n == 0) break;
    piece.assign(buffer.data(), *n);
  }
  server->stream().reset();
}

Awaitable<bool> Http1Relay::exchange(const HttpOrigin& origin, Http1Request request, Connect connect, bool may_retry) {
  auto self = shared_from_this();
  HttpExchange exchange(gateway_, origin);
  auto head = head_of(request);
  const auto decision = exchange.judge(head);
  if (!decision.allowed) co_return co_await answer(request, 403, denial_body(exchange.judged(), decision));
  if (origin.failure) {
    co_return co_await answer(request, failure_status(*origin.failure), failure_body(*origin.failure));
  }
  if (origin.target.host == "localhost") head.authority = "localhost:" + std::to_string(origin.target.port);
  const Gateway::Open open(gateway_, exchange.judged(), [self] { self->guest_->reset(); });

  std::shared_ptr<Upload> upload;
  // The upload must not use the exchange when it is gone.
  struct Detach {
    std::shared_ptr<Upload>& upload;
    ~Detach() {
      if (upload) upload->exchange = nullptr;
    }
  } const detach{upload};
  Server server;
  auto response = co_await attempt(exchange, request, head, connect, false, server, upload);
  // A kept connection may have been closed just before it was used.
  if (!response && may_retry && request_body(request)->kind == BodyLength::Kind::kNone) {
    response = co_await attempt(exchange, request, head, connect, true, server, upload);
  }
  auto changes = response ? exchange.response_head(response->status, response->headers)
                          : Result<bool>(std::unexpected(response.error()));
  const auto length = changes ? gateway::response_body(*response, request.method)
                              : Result<BodyLength>(std::unexpected(changes.error()));
  if (!length) {
    if (server) server->stream().reset();
    (void)co_await answer(request, failure_status(length.error()), failure_body(length.error()));
    co_return false;
  }

  if (response->status == 101) {
    if (!is_websocket(request.headers)) {
      const Error error{ErrorCode::kUnavailable, "the server switched protocols unasked", {}};
      (void)co_await answer(request, 502, failure_body(error));
      co_return false;
    }
    remove_hop_headers(response->headers);
    keep_upgrade(response->headers);
    if (co_await guest_->write(write_head(*response))) co_await switch_protocols(exchange, server);
    co_return false;
  }
  const bool server_closes = response->http10 || length->kind == BodyLength::Kind::kUntilClose ||
                             header_has_token(response->headers, "connection", "close");
  remove_hop_headers(response->headers);
  bool chunked =
      length->kind == BodyLength::Kind::kChunked || length->kind == BodyLength::Kind::kUntilClose || *changes;
  if (length->kind == BodyLength::Kind::kNone) chunked = false;
  if (chunked) {
    remove_header(response->headers, "content-length");
    if (!request.http10) response->headers.emplace_back("transfer-encoding", "chunked");
  }
  const bool keep = !wants_close(request) && !(server_closes && !may_retry);
  if (!keep) response->headers.emplace_back("connection", "close");
  server->start_body(*length);
  Result<void> passed = co_await guest_->write(write_head(*response));
  if (passed) passed = co_await response_body(exchange, server, chunked && !request.http10);
  if (!passed) {
    server->stream().reset();
    guest_->reset();
    co_return false;
  }
  if (server_closes || !upload->done) server->stream().reset();
  co_return keep && upload->done;
}

}  // namespace sbx::gateway
