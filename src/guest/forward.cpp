#include "guest/forward.h"

#include <array>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ip/udp.hpp>
#include <boost/asio/this_coro.hpp>
#include <charconv>
#include <optional>

#include "wire/capsules.h"
#include "wire/tcp_tunnel.h"

namespace sbx::guest {
namespace {

namespace asio = boost::asio;
using Stream = std::shared_ptr<wire::Http2Stream>;
using Tcp = asio::ip::tcp;
using Udp = asio::ip::udp;

constexpr std::string_view kTcpHost = "127.0.0.1:";
constexpr std::string_view kUdpPath = "/.well-known/masque/udp/127.0.0.1/";  // RFC 9298 section 2

std::optional<std::uint16_t> port_after(std::string_view text, std::string_view prefix) {
  if (!text.starts_with(prefix)) return std::nullopt;
  text.remove_prefix(prefix.size());
  if (text.ends_with('/')) text.remove_suffix(1);
  std::uint16_t port = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), port);
  if (error != std::errc{} || end != text.data() + text.size() || port == 0) return std::nullopt;
  return port;
}

// Without a reset, of which there may be only so many: the keeper ends its direction when it sees the answer.
Awaitable<void> refuse(Stream stream, Error error) {
  co_await wire::send_error(*stream, error);
  while (true) {
    const auto rest = co_await stream->read_chunk();
    if (!rest || rest->empty()) co_return;
  }
}

Awaitable<boost::system::error_code> dial(Tcp::socket& socket, Tcp::endpoint server) {
  boost::system::error_code ignored;
  socket.close(ignored);
  const auto [error] = co_await socket.async_connect(server, kNoThrow);
  co_return error;
}

// Servers listen on the loopback of either family, often on one of the two only.
Awaitable<boost::system::error_code> dial_either(Tcp::socket& socket, std::uint16_t port) {
  const auto error = co_await dial(socket, Tcp::endpoint(asio::ip::address_v4::loopback(), port));
  if (!error) co_return error;
  const auto second = co_await dial(socket, Tcp::endpoint(asio::ip::address_v6::loopback(), port));
  co_return second ? error : second;
}

Awaitable<void> forward_tcp(Stream stream, std::uint16_t port) {
  auto socket = std::make_shared<Tcp::socket>(co_await asio::this_coro::executor);
  const auto error = co_await dial_either(*socket, port);
  if (error) {
    const Error refused{ErrorCode::kUnavailable, "port " + std::to_string(port) + ": " + error.message(), {}};
    co_return co_await refuse(stream, refused);
  }
  boost::system::error_code ignored;
  socket->set_option(Tcp::no_delay(true), ignored);
  if (!stream->respond(200, {}, false)) co_return;
  co_await wire::carry(socket, stream);
}

// What the server sends, until the stream is over and the socket is closed.
Awaitable<void> return_packets(Stream stream, std::shared_ptr<Udp::socket> socket) {
  static std::array<char, wire::kLargestDatagram + 1> buffer;  // one thread, and never across a co_await
  while (socket->is_open()) {
    const auto [unreadable] = co_await socket->async_wait(Udp::socket::wait_read, kNoThrow);
    if (unreadable || !socket->is_open()) co_return;
    boost::system::error_code error;
    const auto size = socket->receive(asio::buffer(buffer), 0, error);
    if (error) continue;  // ECONNREFUSED: nobody listens; there may be somebody for the next packet
    std::string capsule;
    wire::append_datagram(capsule, {buffer.data(), size});
    // A client that does not take its packets holds back its own only; what does not fit is lost in the kernel.
    if (!co_await stream->write(capsule)) co_return;
  }
}

Awaitable<void> forward_udp(Stream stream, std::uint16_t port) {
  auto socket = std::make_shared<Udp::socket>(co_await asio::this_coro::executor);
  boost::system::error_code error;
  socket->open(Udp::v4(), error);
  if (!error) socket->non_blocking(true, error);
  if (!error) socket->connect(Udp::endpoint(asio::ip::address_v4::loopback(), port), error);
  if (error) {
    const Error refused{ErrorCode::kUnavailable, "port " + std::to_string(port) + ": " + error.message(), {}};
    co_return co_await refuse(stream, refused);
  }
  wire::HeaderList headers;
  headers.emplace_back("capsule-protocol", "?1");  // RFC 9297 section 3.4
  if (!stream->respond(200, std::move(headers), false)) co_return;
  asio::co_spawn(co_await asio::this_coro::executor, return_packets(stream, socket), asio::detached);
  wire::DatagramReader reader([socket](std::string_view payload) {
    boost::system::error_code ignored;
    socket->send(asio::buffer(payload.data(), payload.size()), 0, ignored);
  });
  for (;;) {
    const auto chunk = co_await stream->read_chunk();
    if (!chunk || chunk->empty() || !reader.feed(*chunk)) break;
  }
  boost::system::error_code ignored;
  socket->close(ignored);
  (void)co_await stream->finish();
}

}  // namespace

Awaitable<void> serve_forward(Stream stream) {
  const auto& request = stream->request();
  if (request.protocol.empty()) {
    if (const auto port = port_after(request.path, kTcpHost)) co_return co_await forward_tcp(stream, *port);
  } else if (request.protocol == "connect-udp") {
    if (const auto port = port_after(request.path, kUdpPath)) co_return co_await forward_udp(stream, *port);
  }
  const Error error{ErrorCode::kInvalid, "no such destination: " + request.path, {}};
  co_await refuse(stream, error);
}

}  // namespace sbx::guest
