#include "gateway/dialer.h"

#include <algorithm>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/experimental/awaitable_operators.hpp>
#include <boost/asio/ip/udp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>

#include "gateway/upstream_proxy.h"

namespace sbx::gateway {

namespace asio = boost::asio;
using asio::ip::tcp;
using namespace asio::experimental::awaitable_operators;

namespace {

constexpr auto kToken = asio::as_tuple(asio::use_awaitable);
// For an address that does not answer: the last one is given longer.
constexpr std::chrono::seconds kNextAfter{3};
constexpr std::chrono::seconds kGiveUpAfter{15};

Awaitable<Result<tcp::socket>> connect(const asio::any_io_executor& executor, tcp::endpoint endpoint,
                                       std::chrono::seconds limit) {
  tcp::socket socket(executor);
  asio::steady_timer timer(executor, limit);
  const auto first = co_await (socket.async_connect(endpoint, kToken) || timer.async_wait(kToken));
  if (first.index() == 1) {
    co_return fail(ErrorCode::kTimeout, endpoint.address().to_string() + " did not answer in time");
  }
  const auto [error] = std::get<0>(first);
  if (error) co_return fail(ErrorCode::kUnavailable, endpoint.address().to_string() + ": " + error.message());
  boost::system::error_code ignored;
  socket.set_option(tcp::no_delay(true), ignored);
  socket.set_option(asio::socket_base::keep_alive(true), ignored);
  co_return socket;
}

// The kernel sends from the address itself to what is its own (but to a secondary address of a network from the primary
// one, which is not recognised here). A datagram socket that is connected sends nothing.
Gateway::Open::End end_of(const asio::any_io_executor& executor, const policy::Address& address) {
  Gateway::Open::End end;
  end.address = address;
  asio::ip::udp::socket probe(executor);
  boost::system::error_code error;
  const asio::ip::udp::endpoint peer(address, 9);
  probe.open(peer.protocol(), error);
  if (!error) probe.connect(peer, error);
  const auto from = error ? asio::ip::udp::endpoint() : probe.local_endpoint(error);
  end.own = !error && policy::unmapped(from.address()) == policy::unmapped(address);
  return end;
}

Awaitable<Result<Resolver::Addresses>> addresses_of(Gateway& gateway, std::string host) {
  if (const auto address = policy::parse_address(host)) co_return Resolver::Addresses{*address};
  if (host == "localhost") {
    Resolver::Addresses loopback;
    loopback.push_back(asio::ip::address_v4::loopback());
    loopback.push_back(asio::ip::address_v6::loopback());
    co_return loopback;
  }
  co_return co_await gateway.resolver().addresses(std::move(host));
}

Awaitable<Dialed> dial_directly(Gateway& gateway, const policy::Target& target) {
  Dialed result;
  auto candidates = co_await addresses_of(gateway, target.host);
  if (!candidates) {
    result.socket = std::unexpected(candidates.error());
    co_return result;
  }
  std::vector<Gateway::Open::End> ends;
  for (const auto& address : *candidates) {
    auto end = end_of(gateway.executor(), address);
    auto decision = gateway.decide_end(target, end);
    if (decision.allowed) {
      ends.push_back(std::move(end));
    } else {
      result.denial = std::move(decision);
    }
  }
  if (ends.empty()) {
    result.socket = fail(ErrorCode::kDenied, result.denial->reason);
    co_return result;
  }
  result.denial.reset();
  for (std::size_t i = 0; i < ends.size(); ++i) {
    const bool last = i + 1 == ends.size();
    result.socket = co_await connect(gateway.executor(), tcp::endpoint(ends[i].address, target.port),
                                     last ? kGiveUpAfter : kNextAfter);
    if (result.socket) {
      result.end = ends[i];
      break;
    }
  }
  co_return result;
}

// The proxy resolves names itself; of what it connects to only an address that was asked for can be judged.
Awaitable<Dialed> dial_through(Gateway& gateway, std::shared_ptr<GatewayConfig> config, const policy::Target& target) {
  Dialed result;
  const auto& proxy = *config->upstream_proxy;
  if (const auto address = policy::parse_address(target.host)) {
    auto decision = config->policy.decide_address(target, *address);
    if (!decision.allowed) {
      result.socket = fail(ErrorCode::kDenied, decision.reason);
      result.denial = std::move(decision);
      co_return result;
    }
  }
  auto candidates = co_await addresses_of(gateway, proxy.host);
  if (!candidates) {
    result.socket = std::unexpected(std::move(candidates).error().while_doing("finding the upstream proxy"));
    co_return result;
  }
  for (const auto& address : *candidates) {
    result.socket = co_await connect(gateway.executor(), tcp::endpoint(address, proxy.port), kGiveUpAfter);
    if (result.socket) break;
  }
  if (!result.socket) {
    result.socket = std::unexpected(std::move(result.socket).error().while_doing("connecting to the upstream proxy"));
    co_return result;
  }
  auto through = co_await connect_through(*result.socket, proxy, target);
  if (!through) result.socket = std::unexpected(std::move(through).error());
  co_return result;
}

}  // namespace

Awaitable<Dialed> dial(Gateway& gateway, policy::Target target) {
  auto config = gateway.config();
  const bool host_service = target.host == "localhost";
  if (config->upstream_proxy && !host_service && !config->upstream_proxy->bypassed_for(target.host)) {
    co_return co_await dial_through(gateway, std::move(config), target);
  }
  co_return co_await dial_directly(gateway, target);
}

}  // namespace sbx::gateway
