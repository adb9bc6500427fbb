#include "gateway/connection.h"

#include <algorithm>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/use_awaitable.hpp>

#include "gateway/client_hello.h"
#include "gateway/deadline.h"
#include "gateway/dialer.h"
#include "gateway/explicit_proxy.h"
#include "gateway/first_bytes.h"
#include "gateway/http1_relay.h"
#include "gateway/http2_relay.h"
#include "gateway/splice.h"
#include "gateway/tls_stream.h"

namespace sbx::gateway {

namespace asio = boost::asio;

namespace {

constexpr auto kToken = asio::as_tuple(asio::use_awaitable);
// For a guest that began to speak, or that has to, so that it can be told why it is refused.
constexpr std::chrono::seconds kSpeakWithin{10};
constexpr std::chrono::seconds kHandshakeWithin{20};

policy::Decision refuse(std::string reason) {
  policy::Decision decision;
  decision.reason = std::move(reason);
  return decision;
}

class Connection : public std::enable_shared_from_this<Connection> {
 public:
  Connection(Gateway& gateway, ConnectionRequest request)
      : gateway_(gateway), request_(std::move(request)), tunnel_(request_.tunnel), target_(request_.target) {}

  Awaitable<void> run();

 private:
  enum class Decided { kNot, kByGuest, kByServer };

  Awaitable<void> run_denied(policy::Decision decision);
  Awaitable<void> run_dialed(Gateway::Open& open);
  Awaitable<void> watch_server();
  Awaitable<bool> read_more();
  Awaitable<FirstBytes> read_first_bytes();
  Awaitable<Result<ClientHello>> read_client_hello();
  policy::Decision judge_hello(const ClientHello& hello);
  Awaitable<void> pass_on();
  Awaitable<void> serve_http(HttpOrigin origin, std::shared_ptr<ByteStream> guest, std::shared_ptr<ByteStream> server,
                             bool http2);
  Awaitable<void> intercept(HttpOrigin origin, ClientHello hello);
  void log(std::string_view kind, const policy::Decision& decision) { gateway_.log().add(kind, target_, decision); }

  Gateway& gateway_;
  ConnectionRequest request_;
  std::shared_ptr<wire::Http2Stream> tunnel_;
  policy::Target target_;
  policy::Decision decision_;
  ServerSocket server_;
  std::string early_;
  Decided decided_ = Decided::kNot;
};

Awaitable<void> Connection::run() {
  auto self = shared_from_this();
  early_ = std::move(request_.early);
  decision_ = gateway_.config()->policy.decide(target_);
  if (!decision_.allowed) co_return co_await run_denied(decision_);
  auto tunnel = tunnel_;
  Gateway::Open open(gateway_, target_, [tunnel] { tunnel->reset(); });
  auto dialed = co_await dial(gateway_, target_);
  if (dialed.denial) co_return co_await run_denied(std::move(*dialed.denial));
  if (!dialed.socket) {
    log(seen::kNetwork, decision_);
    co_return co_await request_.refuse(dialed.socket.error());
  }
  if (dialed.end) open.connected_to(*dialed.end);
  server_ = std::make_shared<asio::ip::tcp::socket>(std::move(*dialed.socket));
  co_await run_dialed(open);
}

// The guest is let in, so that it can be told in the protocol that it speaks.
Awaitable<void> Connection::run_denied(policy::Decision decision) {
  if (never_http(target_.port)) {
    log(seen::kNetwork, decision);
    const Error error{ErrorCode::kDenied, decision.reason, {}};
    co_return co_await request_.refuse(error);
  }
  if (!co_await request_.accept()) co_return;
  auto tunnel = tunnel_;
  Deadline deadline(gateway_.executor(), kSpeakWithin, [tunnel] { tunnel->reset(); });
  const auto kind = co_await read_first_bytes();
  HttpOrigin origin;
  origin.target = target_;
  origin.denial = decision;
  if (kind == FirstBytes::kTls) {
    const auto hello = co_await read_client_hello();
    deadline.cancel();
    if (hello) co_return co_await intercept(std::move(origin), *hello);
  } else if (kind == FirstBytes::kHttp1 || kind == FirstBytes::kHttp2) {
    deadline.cancel();
    auto guest = std::make_shared<TunnelStream>(tunnel_, std::move(early_));
    co_return co_await serve_http(std::move(origin), std::move(guest), nullptr, kind == FirstBytes::kHttp2);
  }
  log(seen::kNetwork, decision);
  tunnel_->reset();
}

// Waits for the server to speak first, which no server of TLS or HTTP does. If it does, the connection is passed on as
// it is.
Awaitable<void> Connection::watch_server() {
  const auto [error] = co_await server_->async_wait(asio::ip::tcp::socket::wait_read, kToken);
  if (error || decided_ != Decided::kNot) co_return;
  decided_ = Decided::kByServer;
  if (gateway_.config()->policy.needs_http(target_.host, target_.port)) {
    log(seen::kNetwork, refuse("rules about methods and paths apply, and this is not HTTP"));
    tunnel_->reset();
    co_return;
  }
  log(seen::kNetwork, decision_);
  co_await download(tunnel_, server_);
}

Awaitable<void> Connection::run_dialed(Gateway::Open&) {
  auto self = shared_from_this();
  if (!co_await request_.accept()) co_return;
  close_with(gateway_.executor(), tunnel_, server_);
  asio::co_spawn(
      gateway_.executor(), [self]() -> Awaitable<void> { return self->watch_server(); }, asio::detached);
  const auto kind = co_await read_first_bytes();
  if (decided_ == Decided::kByServer) {
    co_await upload(tunnel_, server_, std::move(early_));
    co_return co_await tunnel_->closed();
  }
  HttpOrigin origin;
  origin.target = target_;
  if (kind == FirstBytes::kTls) {
    const auto hello = co_await read_client_hello();
    if (decided_ == Decided::kByServer) co_return tunnel_->reset();
    decided_ = Decided::kByGuest;
    boost::system::error_code ignored;
    server_->cancel(ignored);
    if (!hello) {
      log(seen::kTransparent, refuse(hello.error().message));
      co_return tunnel_->reset();
    }
    auto decision = judge_hello(*hello);
    if (!decision.allowed) {
      origin.denial = std::move(decision);
      co_return co_await intercept(std::move(origin), *hello);
    }
    const auto& config = *gateway_.config();
    const bool look_inside = config.policy.needs_http(target_.host, target_.port) ||
                             config.credentials.concern(target_.host, target_.port) || hello->encrypted_hello;
    if (look_inside) co_return co_await intercept(std::move(origin), *hello);
    log(request_.by_proxy ? seen::kForwardBypass : seen::kTransparent, decision);
    co_return co_await pass_on();
  }
  decided_ = Decided::kByGuest;
  boost::system::error_code ignored;
  server_->cancel(ignored);
  if (kind == FirstBytes::kHttp1 || kind == FirstBytes::kHttp2) {
    auto guest = std::make_shared<TunnelStream>(tunnel_, std::move(early_));
    auto server = std::make_shared<SocketStream>(std::move(*server_));
    co_return co_await serve_http(std::move(origin), std::move(guest), std::move(server), kind == FirstBytes::kHttp2);
  }
  if (gateway_.config()->policy.needs_http(target_.host, target_.port)) {
    log(seen::kNetwork, refuse("rules about methods and paths apply, and this is not HTTP"));
    co_return tunnel_->reset();
  }
  log(seen::kNetwork, decision_);
  co_await pass_on();
}

Awaitable<void> Connection::pass_on() {
  asio::co_spawn(gateway_.executor(), download(tunnel_, server_), asio::detached);
  co_await upload(tunnel_, server_, std::move(early_));
  co_await tunnel_->closed();
}

// False at the guest's end.
Awaitable<bool> Connection::read_more() {
  const auto chunk = co_await tunnel_->read_chunk();
  if (!chunk || chunk->empty()) co_return false;
  early_ += *chunk;
  co_return true;
}

Awaitable<FirstBytes> Connection::read_first_bytes() {
  auto tunnel = tunnel_;
  std::optional<Deadline> deadline;
  for (;;) {
    const auto kind = classify(early_);
    if (kind != FirstBytes::kTooFew || decided_ == Decided::kByServer) co_return kind;
    // Silence is no offence, a protocol that is never begun is.
    if (!early_.empty() && !deadline) {
      deadline.emplace(gateway_.executor(), kSpeakWithin, [tunnel] { tunnel->reset(); });
    }
    if (!co_await read_more()) co_return FirstBytes::kOther;
  }
}

Awaitable<Result<ClientHello>> Connection::read_client_hello() {
  auto tunnel = tunnel_;
  const Deadline deadline(gateway_.executor(), kSpeakWithin, [tunnel] { tunnel->reset(); });
  for (;;) {
    auto hello = parse_client_hello(early_);
    if (hello || hello.error().code != ErrorCode::kUnavailable) co_return hello;
    if (!co_await read_more()) co_return fail(ErrorCode::kInvalid, "the ClientHello never ended");
  }
}

// What TLS asks for must be what the connection was opened to.
policy::Decision Connection::judge_hello(const ClientHello& hello) {
  const auto& policy = gateway_.config()->policy;
  const auto address = policy::parse_address(target_.host);
  if (hello.server_name.empty()) {
    if (address) return decision_;
    return refuse("TLS names no server, the connection was opened to " + policy::in_quotes(target_.host));
  }
  const auto name = policy::canonical_host(hello.server_name);
  if (!name) return refuse("TLS asks for " + policy::in_quotes(hello.server_name) + ", which is no host name");
  if (*name == target_.host) return decision_;
  if (!address) {
    return refuse("TLS asks for " + policy::in_quotes(*name) + ", the connection was opened to " +
                  policy::in_quotes(target_.host));
  }
  auto named = target_;
  named.host = *name;
  auto decision = policy.decide(named);
  // A name that only TLS knows gives nothing, but a rule against it holds.
  return !decision.allowed && !decision.rule.empty() ? decision : decision_;
}

Awaitable<void> Connection::serve_http(HttpOrigin origin, std::shared_ptr<ByteStream> guest,
                                       std::shared_ptr<ByteStream> server, bool http2) {
  if (http2) co_return co_await relay_http2(gateway_, std::move(origin), std::move(guest), std::move(server));
  auto relay = std::make_shared<Http1Relay>(gateway_, std::move(guest));
  co_await relay->serve(std::move(origin), std::move(server));
}

Awaitable<void> Connection::intercept(HttpOrigin origin, ClientHello hello) {
  auto tunnel = tunnel_;
  const auto config = gateway_.config();
  std::vector<std::string> protocols;
  for (const auto& protocol : hello.alpn) {
    if (protocol == "h2" || protocol == "http/1.1" || protocol == "http/1.0") protocols.push_back(protocol);
  }
  if (!config->guest_tls || (protocols.empty() && !hello.alpn.empty())) {
    log(seen::kTransparent, origin.denial ? *origin.denial : refuse("TLS that is not HTTP cannot be looked into here"));
    co_return tunnel_->reset();
  }
  origin.tls = true;
  std::shared_ptr<TlsStream> server;
  std::string protocol = protocols.empty() ? "" : protocols.front();
  Deadline deadline(gateway_.executor(), kHandshakeWithin, [tunnel] { tunnel->reset(); });
  if (!origin.denial) {
    auto ssl = gateway_.upstream_tls().connect(target_.host, protocols);
    if (!ssl) co_return tunnel_->reset();
    server = std::make_shared<TlsStream>(std::make_shared<SocketStream>(std::move(*server_)), std::move(*ssl),
                                         gateway_.executor());
    if (const auto shaken = co_await server->handshake(); !shaken) {
      origin.failure = shaken.error();
      server.reset();
    } else if (!protocols.empty()) {
      // Both sides speak the same; a server that chose nothing speaks HTTP/1.1.
      protocol = server->alpn().empty() ? "http/1.1" : server->alpn();
      if (std::ranges::find(protocols, protocol) == protocols.end()) protocol = protocols.front();
    }
  }
  const std::string& shown = hello.server_name.empty() ? target_.host : hello.server_name;
  auto accept = gateway_.config()->guest_tls->accept(shown, protocol);
  if (!accept) co_return tunnel_->reset();
  auto guest = std::make_shared<TlsStream>(std::make_shared<TunnelStream>(tunnel_, std::move(early_)),
                                           std::move(*accept), gateway_.executor());
  const auto shaken = co_await guest->handshake();
  deadline.cancel();
  if (!shaken) {
    log(seen::kTransparent,
        origin.denial ? *origin.denial
                      : refuse("the sandbox does not accept the gateway's certificate: " + shaken.error().message));
    co_return tunnel_->reset();
  }
  co_await serve_http(std::move(origin), std::move(guest), std::move(server), protocol == "h2");
}

// NAME:PORT, ADDRESS:PORT, [V6]:PORT.
Result<policy::Target> parse_authority(std::string_view text) {
  const auto colon = text.rfind(':');
  const auto port = colon == std::string_view::npos ? std::nullopt : policy::parse_port(text.substr(colon + 1));
  if (!port) return fail(ErrorCode::kInvalid, policy::in_quotes(text) + " is not NAME:PORT");
  policy::Target target;
  target.port = *port;
  target.host = SBX_TRY(policy::canonical_host(text.substr(0, colon)), "reading where to connect to");
  return target;
}

}  // namespace

Awaitable<void> serve_connection(Gateway& gateway, ConnectionRequest request) {
  auto connection = std::make_shared<Connection>(gateway, std::move(request));
  co_await connection->run();
}

Awaitable<void> serve_tunnel(Gateway& gateway, std::shared_ptr<wire::Http2Stream> tunnel) {
  auto target = parse_authority(tunnel->request().path);
  if (!target) co_return co_await wire::send_error(*tunnel, target.error());
  if (target->host == kProxyName) {
    if (target->port != kProxyPort) {
      const Error error{ErrorCode::kUnavailable, "the gateway listens on port 3128 only", {}};
      co_return co_await wire::send_error(*tunnel, error);
    }
    if (!tunnel->respond(200, {}, false)) co_return;
    co_return co_await serve_proxy(gateway, std::move(tunnel));
  }
  // "localhost" by its own name is the guest's own business and never comes here.
  ConnectionRequest request;
  request.tunnel = tunnel;
  request.target = std::move(*target);
  request.accept = [tunnel]() -> Awaitable<Result<void>> { co_return tunnel->respond(200, {}, false); };
  request.refuse = [tunnel](const Error& error) -> Awaitable<void> { return wire::send_error(*tunnel, error); };
  co_await serve_connection(gateway, std::move(request));
}

}  // namespace sbx::gateway
