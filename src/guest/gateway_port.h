// GatewayPort: the network port, on which this guest is the client of sbx-gateway (docs/development/protocols.md,
// "Network port"). Sessions come and go with gateways; whoever needs one gets the current one, or waits for the next.
// Thread safety: none; the event loop only.
#pragma once

#include <chrono>
#include <memory>
#include <string>

#include "guest/async_event.h"
#include "wire/http2_session.h"

namespace sbx::guest {

class GatewayPort {
 public:
  explicit GatewayPort(boost::asio::any_io_executor executor) : executor_(executor) {}

  // Waits for the port to appear and serves its sessions. Runs for ever.
  Awaitable<void> run();
  // For tests: from now on this is the session.
  void set_session(std::shared_ptr<wire::Http2Session> session);

  // The live session; kUnavailable if there is none within `patience`.
  Awaitable<Result<std::shared_ptr<wire::Http2Session>>> session(std::chrono::milliseconds patience);
  // POST /dns-query; the whole answer.
  Awaitable<Result<std::string>> dns_query(std::string message);

 private:
  boost::asio::any_io_executor executor_;
  std::shared_ptr<wire::Http2Session> session_;
  std::shared_ptr<AsyncEvent> arrival_;  // set by the next session
};

}  // namespace sbx::guest
