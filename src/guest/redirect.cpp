#include "guest/redirect.h"

#include <linux/netfilter_ipv4.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>

#include "wire/tcp_tunnel.h"

namespace sbx::guest {
namespace {

using namespace std::chrono_literals;
using Tcp = boost::asio::ip::tcp;

constexpr int kBacklog = 4096;
constexpr auto kGatewayPatience = 20'000ms;  // a gateway that is being replaced

wire::Http2Head connect_to(std::string authority) {
  wire::Http2Head head;
  head.method = "CONNECT";
  head.path = std::move(authority);
  return head;
}

std::string dotted(std::uint32_t address) { return boost::asio::ip::address_v4(address).to_string(); }

}  // namespace

Result<std::pair<std::uint32_t, std::uint16_t>> original_destination(const Tcp::socket& socket) {
  sockaddr_in address{};
  socklen_t size = sizeof address;
  const int fd = const_cast<Tcp::socket&>(socket).native_handle();
  if (::getsockopt(fd, SOL_IP, SO_ORIGINAL_DST, &address, &size) != 0) return fail_errno("SO_ORIGINAL_DST", errno);
  return std::pair{ntohl(address.sin_addr.s_addr), ntohs(address.sin_port)};
}

Redirect::Redirect(boost::asio::any_io_executor executor, GatewayPort& gateway, const NameMap& names,
                   Destination destination)
    : executor_(executor),
      gateway_(gateway),
      names_(names),
      destination_(std::move(destination)),
      acceptor_(executor) {}

Result<std::uint16_t> Redirect::listen(std::uint16_t port) {
  boost::system::error_code error;
  acceptor_.open(Tcp::v4(), error);
  if (!error) acceptor_.set_option(Tcp::acceptor::reuse_address(true), error);
  if (!error) acceptor_.bind(Tcp::endpoint(Tcp::v4(), port), error);
  if (!error) acceptor_.listen(kBacklog, error);
  if (error) return fail(ErrorCode::kUnavailable, "listening for redirected connections: " + error.message());
  boost::asio::co_spawn(executor_, accept(), boost::asio::detached);
  return acceptor_.local_endpoint().port();
}

Awaitable<void> Redirect::accept() {
  for (;;) {
    auto [error, socket] = co_await acceptor_.async_accept(kNoThrow);
    if (error == boost::asio::error::operation_aborted) co_return;
    if (error) {
      co_await sleep_for(executor_, 100ms);  // out of descriptors, most likely
      continue;
    }
    boost::asio::co_spawn(executor_, serve(std::move(socket)), boost::asio::detached);
  }
}

Awaitable<void> Redirect::serve(Tcp::socket socket) {
  ++connections_;
  co_await relay(std::make_shared<Tcp::socket>(std::move(socket)));
  --connections_;
}

Awaitable<void> Redirect::relay(std::shared_ptr<Tcp::socket> shared) {
  auto& socket = *shared;
  const auto destination = destination_(socket);
  // Not redirected, but made to this very port: there is nobody it could be passed on to.
  if (!destination || destination->second == acceptor_.local_endpoint().port()) co_return wire::cut(socket);
  const auto [address, port] = *destination;
  const auto name = names_.name_of(address);
  const std::string authority = name.value_or(dotted(address)) + ":" + std::to_string(port);
  boost::system::error_code ignored;
  socket.set_option(Tcp::no_delay(true), ignored);

  auto session = co_await gateway_.session(kGatewayPatience);
  if (!session) co_return wire::cut(socket);
  auto stream = (*session)->open(connect_to(authority), false);
  if (!stream) co_return wire::cut(socket);
  const auto response = co_await (*stream)->response();
  if (!response || response->status / 100 != 2) {
    wire::cut(socket);
    if (response) (void)co_await (*stream)->finish();  // not a reset, of which there may be only so many
    co_return;
  }
  co_await wire::carry(shared, *stream);
}

}  // namespace sbx::guest
