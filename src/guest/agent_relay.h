// AgentRelay: the socket of the host's SSH agent in the sandbox. What connects to it becomes a POST /ssh-agent on the
// network port, whose gateway lets the agent list its keys and sign, and nothing else. The socket is there only where
// the sandbox was made with an agent. Whoever runs in the sandbox may use it, as with everything there.
// Thread safety: none; the event loop only.
#pragma once

#include <boost/asio/local/stream_protocol.hpp>
#include <memory>

#include "base/result.h"
#include "guest/async_event.h"
#include "guest/gateway_port.h"

namespace sbx::guest {

class AgentRelay {
 public:
  using Local = boost::asio::local::stream_protocol;

  AgentRelay(boost::asio::any_io_executor executor, GatewayPort& gateway)
      : executor_(executor), gateway_(gateway), acceptor_(executor) {}

  // Where clients find it (SSH_AUTH_SOCK).
  static constexpr const char* kSocket = "/run/ssh-agent.sock";
  // Makes the socket (again), or takes it away. `this` must outlive the event loop.
  Result<void> offer(bool wanted, const char* path = kSocket);

 private:
  Awaitable<void> accept();
  Awaitable<void> relay(std::shared_ptr<Local::socket> client);

  boost::asio::any_io_executor executor_;
  GatewayPort& gateway_;
  Local::acceptor acceptor_;
};

}  // namespace sbx::guest
