#include "wire/tcp_tunnel.h"

#include <algorithm>
#include <array>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/buffer.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>
#include <chrono>

#include "wire/signal.h"

namespace sbx::wire {

namespace asio = boost::asio;
using namespace std::chrono_literals;
using Tcp = asio::ip::tcp;

namespace {

constexpr auto kToken = asio::as_tuple(asio::use_awaitable);
constexpr std::size_t kPiece = 64U << 10U;
// Well under what a peer takes for a flood (Http2Limits::max_resets_per_second): the session is everybody's.
constexpr int kResetsPerSecond = 100;

// One for all: it holds bytes only between a read and the copy right after it.
std::span<char> scratch() {
  static thread_local std::array<char, kPiece> buffer;
  return buffer;
}

// Ends a stream by a reset, later if there have been many.
Awaitable<void> reset(std::shared_ptr<Http2Stream> stream) {
  static thread_local std::chrono::steady_clock::time_point second;
  static thread_local int resets = 0;
  for (;;) {
    const auto now = std::chrono::steady_clock::now();
    if (now - second >= 1s) {
      second = now;
      resets = 0;
    }
    if (resets < kResetsPerSecond) break;
    asio::steady_timer turn(co_await asio::this_coro::executor, second + 1s);
    (void)co_await turn.async_wait(kToken);
  }
  ++resets;
  stream->reset();
}

// From the connection to the stream.
Awaitable<void> send(TcpSocket socket, std::shared_ptr<Http2Stream> stream) {
  for (;;) {
    const auto room = co_await stream->writable();
    if (!room) co_return cut(*socket);
    boost::system::error_code error;
    const auto buffer = scratch().first(std::min(*room, kPiece));
    const std::size_t size = socket->read_some(asio::buffer(buffer.data(), buffer.size()), error);
    if (error == asio::error::would_block || error == asio::error::try_again) {
      const auto [unreadable] = co_await socket->async_wait(Tcp::socket::wait_read, kToken);
      if (unreadable) co_return co_await reset(stream);
      continue;
    }
    if (error == asio::error::eof) {
      (void)co_await stream->finish();
      co_return;
    }
    if (error) co_return co_await reset(stream);
    if (!stream->write_now({buffer.data(), size})) co_return cut(*socket);
  }
}

// From the stream to the connection.
Awaitable<void> receive(std::shared_ptr<Http2Stream> stream, TcpSocket socket) {
  for (;;) {
    const auto chunk = co_await stream->read_chunk();
    if (!chunk) co_return cut(*socket);
    if (chunk->empty()) {
      boost::system::error_code ignored;
      socket->shutdown(Tcp::socket::shutdown_send, ignored);
      co_return;
    }
    const auto [error, sent] = co_await asio::async_write(*socket, asio::buffer(*chunk), kToken);
    if (error) co_return co_await reset(stream);
  }
}

// Wakes whoever still waits for the connection when the stream is over. What the kernel has for it is left to go out,
// unless the peer has reset the stream.
Awaitable<void> end_with(std::shared_ptr<Http2Stream> stream, TcpSocket socket) {
  co_await stream->closed();
  boost::system::error_code ignored;
  if (stream->reset_code() != 0) {
    cut(*socket);
  } else {
    socket->cancel(ignored);
  }
}

}  // namespace

void cut(Tcp::socket& socket) {
  boost::system::error_code ignored;
  socket.set_option(asio::socket_base::linger(true, 0), ignored);
  socket.close(ignored);
}

Awaitable<void> carry(TcpSocket socket, std::shared_ptr<Http2Stream> stream) {
  const auto executor = co_await asio::this_coro::executor;
  boost::system::error_code ignored;
  socket->non_blocking(true, ignored);
  auto ended = std::make_shared<std::pair<bool, Signal>>(false, executor);
  asio::co_spawn(executor, end_with(stream, socket), asio::detached);
  asio::co_spawn(executor, send(socket, stream), [ended](std::exception_ptr) {
    ended->first = true;
    ended->second.notify();
  });
  co_await receive(stream, socket);
  while (!ended->first) co_await ended->second.wait();
}

}  // namespace sbx::wire
