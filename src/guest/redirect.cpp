#include "guest/redirect.h"

#include <linux/netfilter_ipv4.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <boost/asio/buffer.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/write.hpp>
#include <vector>

namespace sbx::guest {
namespace {

using namespace std::chrono_literals;
using Tcp = boost::asio::ip::tcp;

constexpr int kBacklog = 4096;
constexpr auto kGatewayPatience = 20'000ms;  // a gateway that is being replaced
constexpr std::size_t kPiece = 16U << 10U;
constexpr std::size_t kLargestRead = 64U << 10U;
// Well under what a gateway takes for a flood (wire::Http2Limits::max_resets_per_second): the session is everybody's.
constexpr int kResetsPerSecond = 100;

wire::Http2Head connect_to(std::string authority) {
  wire::Http2Head head;
  head.method = "CONNECT";
  head.path = std::move(authority);
  return head;
}

std::string dotted(std::uint32_t address) { return boost::asio::ip::address_v4(address).to_string(); }

// close(2) that sends a reset instead of an orderly end.
void cut(Tcp::socket& socket) {
  boost::system::error_code ignored;
  socket.set_option(boost::asio::socket_base::linger(true, 0), ignored);
  socket.close(ignored);
}

// Ends a stream by a reset, later if there have been many.
Awaitable<void> reset(wire::Http2Stream& stream) {
  static std::chrono::steady_clock::time_point second;
  static int resets = 0;
  for (;;) {
    const auto now = std::chrono::steady_clock::now();
    if (now - second >= 1s) {
      second = now;
      resets = 0;
    }
    if (resets < kResetsPerSecond) break;
    co_await sleep_for(co_await boost::asio::this_coro::executor,
                       std::chrono::ceil<std::chrono::milliseconds>(second + 1s - now));
  }
  ++resets;
  stream.reset();
}

// From the connection to the stream. A connection that waits holds no buffer.
Awaitable<void> send(Tcp::socket& socket, wire::Http2Stream& stream) {
  static std::vector<char> buffer(kLargestRead);  // one thread, and never across a co_await
  for (;;) {
    const auto [unreadable] = co_await socket.async_wait(Tcp::socket::wait_read, kNoThrow);
    if (unreadable) co_return co_await reset(stream);
    boost::system::error_code error;
    const std::size_t size = socket.read_some(boost::asio::buffer(buffer), error);
    if (error == boost::asio::error::would_block || error == boost::asio::error::try_again) continue;
    if (error == boost::asio::error::eof) {
      (void)co_await stream.finish();
      co_return;
    }
    if (error) co_return co_await reset(stream);
    const std::string piece(buffer.data(), size);
    const auto written = co_await stream.write(piece);
    if (!written) co_return cut(socket);
  }
}

// From the stream to the connection.
Awaitable<void> receive(wire::Http2Stream& stream, Tcp::socket& socket) {
  std::vector<char> buffer(kPiece);
  for (;;) {
    const auto size = co_await stream.read_some(buffer);
    if (!size) co_return cut(socket);
    if (*size == 0) {
      boost::system::error_code ignored;
      socket.shutdown(Tcp::socket::shutdown_send, ignored);
      co_return;
    }
    const auto [error, sent] =
        co_await boost::asio::async_write(socket, boost::asio::buffer(buffer.data(), *size), kNoThrow);
    if (error) co_return co_await reset(stream);
  }
}

// Wakes send() when the stream is over. What the kernel still has for the client is left to go out.
Awaitable<void> stop_sending(std::shared_ptr<wire::Http2Stream> stream, std::shared_ptr<Tcp::socket> socket) {
  co_await stream->closed();
  boost::system::error_code ignored;
  socket->cancel(ignored);
}

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
  if (!destination || destination->second == acceptor_.local_endpoint().port()) co_return cut(socket);
  const auto [address, port] = *destination;
  const auto name = names_.name_of(address);
  const std::string authority = name.value_or(dotted(address)) + ":" + std::to_string(port);
  boost::system::error_code ignored;
  socket.non_blocking(true, ignored);
  socket.set_option(Tcp::no_delay(true), ignored);

  auto session = co_await gateway_.session(kGatewayPatience);
  if (!session) co_return cut(socket);
  auto stream = (*session)->open(connect_to(authority), false);
  if (!stream) co_return cut(socket);
  const auto response = co_await (*stream)->response();
  if (!response || response->status / 100 != 2) {
    cut(socket);
    if (response) (void)co_await (*stream)->finish();  // not a reset, of which there may be only so many
    co_return;
  }
  const auto sent = std::make_shared<AsyncEvent>(executor_);
  boost::asio::co_spawn(executor_, send(socket, **stream), [sent](std::exception_ptr) { sent->set(); });
  co_await receive(**stream, socket);
  // The other side has said all it had to. Our client may go on sending, as long as there is somebody to send it to.
  boost::asio::co_spawn(executor_, stop_sending(*stream, shared), boost::asio::detached);
  co_await sent->wait();
}

}  // namespace sbx::guest
