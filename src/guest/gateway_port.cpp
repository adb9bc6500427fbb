#include "guest/gateway_port.h"

#include <fcntl.h>

#include "base/file.h"
#include "guest/console.h"
#include "guest/port_sessions.h"
#include "guest/virtio_port.h"

namespace sbx::guest {
namespace {

using namespace std::chrono_literals;

constexpr const char* kPortName = "sbx.network";
constexpr auto kDnsPatience = 4000ms;  // resolvers ask again after five seconds
constexpr std::size_t kLargestDnsMessage = 65'535;

// Outside coroutines: GCC 12 cannot keep the arrays behind braced initialisers across a co_await.
wire::Http2Head dns_request() { return {"POST", "/dns-query", 0, {{"content-type", "application/dns-message"}}}; }

}  // namespace

Awaitable<void> GatewayPort::run() {
  auto path = find_port(kPortName);
  while (!path) {
    co_await sleep_for(executor_, 50ms);
    path = find_port(kPortName);
  }
  auto port = open_file(*path, O_RDWR | O_NONBLOCK);
  if (!port) {
    console_line("network port: " + port.error().describe());
    co_return;
  }
  PortSessions sessions(executor_, *std::move(port), PortPeer::kServer, [this](PortSessions::Descriptor near) {
    auto session = wire::Http2Session::client(std::move(near));
    set_session(session);
    return session;
  });
  co_await sessions.run();
}

void GatewayPort::set_session(std::shared_ptr<wire::Http2Session> session) {
  session_ = std::move(session);
  if (const auto arrival = std::exchange(arrival_, nullptr)) arrival->set();
}

Awaitable<Result<std::shared_ptr<wire::Http2Session>>> GatewayPort::session(std::chrono::milliseconds patience) {
  if (!session_ || !session_->alive()) {
    if (!arrival_) arrival_ = std::make_shared<AsyncEvent>(executor_);
    const auto arrival = arrival_;
    (void)co_await arrival->wait_for(patience);
  }
  if (!session_ || !session_->alive()) co_return fail(ErrorCode::kUnavailable, "the gateway is not there");
  co_return session_;
}

Awaitable<Result<std::string>> GatewayPort::dns_query(std::string message) {
  SBX_CO_TRY(auto session, co_await this->session(kDnsPatience), "asking the gateway");
  SBX_CO_TRY(auto stream, session->open(dns_request(), false), "asking the gateway");
  SBX_CO_CHECK(co_await stream->write(message), "asking the gateway");
  SBX_CO_CHECK(co_await stream->finish(), "asking the gateway");
  SBX_CO_TRY(const auto response, co_await stream->response(), "asking the gateway");
  if (response.status != 200) {
    stream->reset();
    co_return fail(ErrorCode::kDenied, "the gateway answered with status " + std::to_string(response.status));
  }
  co_return co_await wire::read_body(*stream, kLargestDnsMessage);
}

}  // namespace sbx::guest
