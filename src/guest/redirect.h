// Redirect: the listener that netfilter sends every outgoing TCP connection of the guest to, whoever made it. Each
// becomes a CONNECT stream on the network port, to the name that its destination was handed out for. An end of data, a
// reset and a full buffer on one side become the same on the other; a connection that the gateway refuses, or that
// loses its gateway, is reset. Thread safety: none; the event loop only.
#pragma once

#include <boost/asio/ip/tcp.hpp>
#include <functional>
#include <memory>
#include <string>

#include "guest/async_event.h"
#include "guest/gateway_port.h"
#include "guest/name_map.h"

namespace sbx::guest {

class Redirect {
 public:
  using Tcp = boost::asio::ip::tcp;
  // Where a connection was going before it was redirected (host byte order); an Error if it was not.
  using Destination = std::function<Result<std::pair<std::uint32_t, std::uint16_t>>(const Tcp::socket&)>;

  Redirect(boost::asio::any_io_executor executor, GatewayPort& gateway, const NameMap& names, Destination destination);

  // Listens on all addresses and serves for ever in coroutines of its own; `this` must outlive the event loop. Port 0
  // is any that is free.
  Result<std::uint16_t> listen(std::uint16_t port);
  std::size_t connections() const { return connections_; }

 private:
  Awaitable<void> accept();
  Awaitable<void> serve(Tcp::socket socket);
  Awaitable<void> relay(std::shared_ptr<Tcp::socket> socket);

  boost::asio::any_io_executor executor_;
  GatewayPort& gateway_;
  const NameMap& names_;
  Destination destination_;
  Tcp::acceptor acceptor_;
  std::size_t connections_ = 0;
};

// SO_ORIGINAL_DST (linux/netfilter_ipv4.h).
Result<std::pair<std::uint32_t, std::uint16_t>> original_destination(const boost::asio::ip::tcp::socket& socket);

}  // namespace sbx::guest
