#include "gateway/explicit_proxy.h"

#include <algorithm>

#include "gateway/connection.h"
#include "gateway/dialer.h"
#include "gateway/http1_relay.h"

namespace sbx::gateway {

namespace {

constexpr std::string_view kScheme = "http://";

struct ProxyTarget {
  policy::Target target;
  std::string authority;
  std::string path;
};

Result<policy::Target> parse_target(std::string_view authority, std::optional<std::uint16_t> implied) {
  policy::Target target;
  auto host = authority;
  const auto colon = authority.rfind(':');
  if (colon != std::string_view::npos && authority.find(']', colon) == std::string_view::npos) {
    implied = policy::parse_port(authority.substr(colon + 1));
    host = authority.substr(0, colon);
  }
  if (!implied) return fail(ErrorCode::kInvalid, policy::in_quotes(authority) + " names no port");
  target.port = *implied;
  target.host = SBX_TRY(policy::canonical_host(host), "reading the target");
  return target;
}

Result<ProxyTarget> parse_absolute(const std::string& url) {
  if (!url.starts_with(kScheme)) {
    return fail(ErrorCode::kInvalid, "this is a proxy: ask it for http:// URLs, or with CONNECT for anything else");
  }
  ProxyTarget result;
  const auto rest = std::string_view(url).substr(kScheme.size());
  const auto end = std::min(rest.find_first_of("/?"), rest.size());
  result.authority = rest.substr(0, end);
  result.path = rest.substr(end);
  if (!result.path.starts_with('/')) result.path.insert(0, "/");
  if (result.authority.find('@') != std::string::npos) {
    return fail(ErrorCode::kInvalid, "a login in a URL is not passed on");
  }
  result.target = SBX_TRY(parse_target(result.authority, 80), "reading the URL");
  return result;
}

class Proxy {
 public:
  Proxy(Gateway& gateway, std::shared_ptr<wire::Http2Stream> tunnel)
      : gateway_(gateway),
        tunnel_(std::move(tunnel)),
        guest_(std::make_shared<TunnelStream>(tunnel_)),
        relay_(std::make_shared<Http1Relay>(gateway, guest_)) {}

  Awaitable<void> run();

 private:
  Awaitable<void> connect(const Http1Request& request);
  Awaitable<bool> forward(Http1Request request);
  Awaitable<Result<Http1Relay::Server>> server_for(policy::Target target, HttpOrigin& origin, bool fresh);

  Gateway& gateway_;
  std::shared_ptr<wire::Http2Stream> tunnel_;
  std::shared_ptr<TunnelStream> guest_;
  std::shared_ptr<Http1Relay> relay_;
  // The last server, kept while the requests are for it.
  policy::Target kept_for_;
  Http1Relay::Server kept_;
};

Awaitable<void> Proxy::run() {
  for (;;) {
    auto request = co_await relay_->next();
    if (!request) break;
    if (request->method == "CONNECT") co_return co_await connect(*request);
    if (!co_await forward(std::move(*request))) break;
  }
  if (kept_) kept_->stream().reset();
  co_await relay_->close();
}

Awaitable<void> Proxy::connect(const Http1Request& asked) {
  auto target = parse_target(asked.target, std::nullopt);
  if (!target) {
    (void)co_await relay_->answer(asked, 400, failure_body(target.error()));
    co_return;
  }
  if (kept_) kept_->stream().reset();
  auto guest = guest_;
  auto relay = relay_;
  ConnectionRequest request;
  request.tunnel = tunnel_;
  request.target = std::move(*target);
  request.early = relay_->take_rest();
  request.by_proxy = true;
  request.accept = [guest]() -> Awaitable<Result<void>> {
    return guest->write("HTTP/1.1 200 Connection established\r\n\r\n");
  };
  request.refuse = [relay, asked](const Error& error) -> Awaitable<void> {
    const int status = error.code == ErrorCode::kDenied ? 403 : failure_status(error);
    auto body = failure_body(error);
    (void)co_await relay->answer(asked, status, std::move(body));
    co_await relay->close();
  };
  co_await serve_connection(gateway_, std::move(request));
}

Awaitable<Result<Http1Relay::Server>> Proxy::server_for(policy::Target target, HttpOrigin& origin, bool fresh) {
  const bool same = kept_ && kept_for_.host == target.host && kept_for_.port == target.port;
  if (same && !fresh && !kept_->ended()) co_return kept_;
  if (kept_) kept_->stream().reset();
  kept_.reset();
  auto dialed = co_await dial(gateway_, target);
  if (dialed.denial) origin.denial = dialed.denial;
  if (!dialed.socket) co_return std::unexpected(dialed.socket.error());
  kept_ = std::make_shared<Http1Input>(std::make_shared<SocketStream>(std::move(*dialed.socket)), gateway_.executor());
  kept_for_ = std::move(target);
  co_return kept_;
}

Awaitable<bool> Proxy::forward(Http1Request request) {
  auto absolute = parse_absolute(request.target);
  if (!absolute) co_return co_await relay_->answer(request, 400, failure_body(absolute.error()));
  // The URL counts, and Host with it (RFC 9112 section 3.2.2).
  set_header(request.headers, "host", absolute->authority);
  request.target = absolute->path;
  HttpOrigin origin;
  origin.target = absolute->target;
  // Where the name leads to is judged before the request is: one denial, one answer.
  if (gateway_.config()->policy.decide(absolute->target).allowed) {
    const auto server = co_await server_for(absolute->target, origin, false);
    if (!server && !origin.denial) {
      co_return co_await relay_->answer(request, failure_status(server.error()), failure_body(server.error()));
    }
  }
  const auto connect = [this, &origin, target = absolute->target](bool fresh) {
    return server_for(target, origin, fresh);
  };
  const bool goes_on = co_await relay_->exchange(origin, std::move(request), connect, true);
  if (kept_ && !kept_->ended()) kept_->watch([] {});
  co_return goes_on;
}

}  // namespace

Awaitable<void> serve_proxy(Gateway& gateway, std::shared_ptr<wire::Http2Stream> tunnel) {
  Proxy proxy(gateway, std::move(tunnel));
  co_await proxy.run();
}

}  // namespace sbx::gateway
