#include "gateway/splice.h"

#include <algorithm>
#include <array>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/buffer.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>

#include "gateway/streams.h"

namespace sbx::gateway {

namespace asio = boost::asio;

namespace {
constexpr auto kToken = asio::as_tuple(asio::use_awaitable);
constexpr std::uint32_t kConnectError = 10;  // RFC 9113 section 7

// One for all: it holds bytes only between a read and the copy right after it.
std::span<char> scratch() {
  static thread_local std::array<char, 128U << 10U> buffer;
  return buffer;
}
}  // namespace

void close_with(const asio::any_io_executor& executor, std::shared_ptr<wire::Http2Stream> tunnel, ServerSocket socket) {
  asio::co_spawn(
      executor,
      [tunnel = std::move(tunnel), socket = std::move(socket)]() -> wire::Awaitable<void> {
        co_await tunnel->closed();
        if (tunnel->reset_code() != 0) {
          abort_socket(*socket);
        } else {
          boost::system::error_code ignored;
          socket->close(ignored);
        }
      },
      asio::detached);
}

wire::Awaitable<void> download(std::shared_ptr<wire::Http2Stream> tunnel, ServerSocket socket) {
  boost::system::error_code error;
  socket->non_blocking(true, error);
  while (!error) {
    const auto room = co_await tunnel->writable();
    if (!room) co_return;
    const auto buffer = scratch().first(std::min(*room, scratch().size()));
    const auto n = socket->read_some(asio::buffer(buffer.data(), buffer.size()), error);
    if (error == asio::error::would_block) {
      std::tie(error) = co_await socket->async_wait(asio::ip::tcp::socket::wait_read, kToken);
      continue;
    }
    if (!error && !tunnel->write_now({buffer.data(), n})) co_return;
  }
  if (error == asio::error::eof) {
    (void)co_await tunnel->finish();
  } else {
    tunnel->reset(kConnectError);
  }
}

wire::Awaitable<void> upload(std::shared_ptr<wire::Http2Stream> tunnel, ServerSocket socket, std::string early) {
  auto chunk = std::move(early);
  boost::system::error_code ignored;
  for (;;) {
    if (!chunk.empty()) {
      const auto [error, n] = co_await asio::async_write(*socket, asio::buffer(chunk), kToken);
      if (error) {
        tunnel->reset(kConnectError);
        co_return;
      }
    }
    auto next = co_await tunnel->read_chunk();
    if (!next) {
      abort_socket(*socket);
      co_return;
    }
    chunk = std::move(*next);
    if (chunk.empty()) break;
  }
  socket->shutdown(asio::ip::tcp::socket::shutdown_send, ignored);
}

}  // namespace sbx::gateway
