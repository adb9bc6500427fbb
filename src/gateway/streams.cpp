#include "gateway/streams.h"

#include <sys/socket.h>

#include <algorithm>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/buffer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>
#include <cstring>

namespace sbx::gateway {

namespace asio = boost::asio;

namespace {
constexpr auto kToken = asio::as_tuple(asio::use_awaitable);
}

Awaitable<void> SocketStream::readable() { co_await socket_.async_wait(asio::ip::tcp::socket::wait_read, kToken); }

Awaitable<Result<std::size_t>> SocketStream::read_some(std::span<char> buffer) {
  auto [error, n] = co_await socket_.async_read_some(asio::buffer(buffer.data(), buffer.size()), kToken);
  if (error == asio::error::eof) co_return std::size_t{0};
  if (error) co_return fail(ErrorCode::kUnavailable, "reading from the server: " + error.message());
  co_return n;
}

Awaitable<Result<void>> SocketStream::write(std::string_view data) {
  auto [error, n] = co_await asio::async_write(socket_, asio::buffer(data), kToken);
  if (error) co_return fail(ErrorCode::kUnavailable, "writing to the server: " + error.message());
  co_return Result<void>{};
}

Awaitable<Result<void>> SocketStream::finish() {
  boost::system::error_code error;
  socket_.shutdown(asio::ip::tcp::socket::shutdown_send, error);
  if (error) co_return fail(ErrorCode::kUnavailable, "ending the request: " + error.message());
  co_return Result<void>{};
}

void SocketStream::reset() {
  boost::system::error_code ignored;
  socket_.close(ignored);
}

void abort_socket(asio::ip::tcp::socket& socket) {
  boost::system::error_code ignored;
  socket.set_option(asio::socket_base::linger(true, 0), ignored);
  socket.close(ignored);
}

Awaitable<void> TunnelStream::readable() {
  if (!early_.empty()) co_return;
  // The end and errors are told again by the next read.
  auto chunk = co_await tunnel_->read_chunk();
  if (chunk) early_ = std::move(*chunk);
}

Awaitable<Result<std::size_t>> TunnelStream::read_some(std::span<char> buffer) {
  if (early_.empty()) co_return co_await tunnel_->read_some(buffer);
  const std::size_t n = std::min(buffer.size(), early_.size());
  std::memcpy(buffer.data(), early_.data(), n);
  early_.erase(0, n);
  if (early_.empty()) early_.shrink_to_fit();
  co_return n;
}

}  // namespace sbx::gateway
