#include "wire/byte_stream.h"

#include <sys/socket.h>

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/buffer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>

namespace sbx::wire {

namespace asio = boost::asio;

namespace {
constexpr auto kToken = asio::as_tuple(asio::use_awaitable);
}

asio::awaitable<Result<std::size_t>> DescriptorStream::read_some(std::span<char> buffer) {
  auto [error, n] = co_await descriptor_.async_read_some(asio::buffer(buffer.data(), buffer.size()), kToken);
  if (error == asio::error::eof) co_return std::size_t{0};
  if (error) co_return fail(ErrorCode::kUnavailable, "reading: " + error.message());
  co_return n;
}

asio::awaitable<Result<void>> DescriptorStream::write(std::string_view data) {
  auto [error, n] = co_await asio::async_write(descriptor_, asio::buffer(data), kToken);
  if (error) co_return fail(ErrorCode::kUnavailable, "writing: " + error.message());
  co_return Result<void>{};
}

asio::awaitable<Result<void>> DescriptorStream::finish() {
  if (::shutdown(descriptor_.native_handle(), SHUT_WR) != 0) co_return fail_errno("shutdown", errno);
  co_return Result<void>{};
}

void DescriptorStream::reset() {
  boost::system::error_code ignored;
  descriptor_.close(ignored);
}

}  // namespace sbx::wire
