// Resolver: the name server of the guest, on UDP and TCP port 53 of sbx0's address, for its processes and (through
// Docker's own resolver, or directly) its containers.
//
//   A      an address of NameMap's, once the gateway has said that the name exists
//   AAAA, HTTPS, SVCB   no such record (they would lead around the map)
//   PTR    the name that an address was handed out for; nobody's address otherwise
//   others the gateway's own answer
//
// Thread safety: none; the event loop only.
#pragma once

#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ip/udp.hpp>
#include <chrono>
#include <functional>
#include <string>
#include <unordered_map>

#include "guest/async_event.h"
#include "guest/dns_message.h"
#include "guest/name_map.h"

namespace sbx::guest {

class Resolver {
 public:
  // Sends a DNS query to the gateway, returns its answer.
  using Ask = std::function<Awaitable<Result<std::string>>(std::string)>;

  Resolver(boost::asio::any_io_executor executor, NameMap& names, Ask ask);

  // Binds both ports and serves for ever in coroutines of its own; `this` must outlive the event loop. Port 0 is one
  // that is free on both.
  Result<std::uint16_t> listen(const boost::asio::ip::address_v4& address, std::uint16_t port);
  // The whole answer; empty if there is none to give.
  Awaitable<std::string> answer(std::string message);

 private:
  using Udp = boost::asio::ip::udp;
  using Tcp = boost::asio::ip::tcp;

  Awaitable<std::string> answer_address(DnsQuery query);
  std::string answer_reverse(const DnsQuery& query) const;
  Awaitable<std::string> forward(DnsQuery query);
  Awaitable<void> serve_udp();
  Awaitable<void> reply(std::string message, Udp::endpoint client);
  Awaitable<void> serve_tcp();
  Awaitable<void> serve_connection(Tcp::socket socket);

  boost::asio::any_io_executor executor_;
  NameMap& names_;
  Ask ask_;
  Udp::socket udp_;
  Tcp::acceptor tcp_;
  int in_flight_ = 0;
  int connections_ = 0;
  // When the gateway last said that a name exists.
  std::unordered_map<std::string, std::chrono::steady_clock::time_point> confirmed_;
};

}  // namespace sbx::guest
