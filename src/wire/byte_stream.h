// ByteStream: a connection seen as bytes in two directions, whatever carries it (a descriptor, a stream of HTTP/2, TLS
// over another ByteStream). DescriptorStream is the one over poll(2).
// Thread safety: none; one executor. One reader and one writer at a time, which may be different coroutines.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <memory>
#include <span>
#include <string_view>

#include "base/result.h"

namespace sbx::wire {

class ByteStream {
 public:
  virtual ~ByteStream() = default;
  // Waits for at least one byte; 0 is the end of the peer's direction.
  virtual boost::asio::awaitable<Result<std::size_t>> read_some(std::span<char> buffer) = 0;
  // All of `data`, in the order of the calls.
  virtual boost::asio::awaitable<Result<void>> write(std::string_view data) = 0;
  // Ends our direction (half-close).
  virtual boost::asio::awaitable<Result<void>> finish() = 0;
  // Abandons both directions; waiting calls fail with kUnavailable. May be called again.
  virtual void reset() = 0;
};

class DescriptorStream final : public ByteStream {
 public:
  explicit DescriptorStream(boost::asio::posix::stream_descriptor descriptor) : descriptor_(std::move(descriptor)) {}
  boost::asio::awaitable<Result<std::size_t>> read_some(std::span<char> buffer) override;
  boost::asio::awaitable<Result<void>> write(std::string_view data) override;
  boost::asio::awaitable<Result<void>> finish() override;
  void reset() override;

 private:
  boost::asio::posix::stream_descriptor descriptor_;
};

}  // namespace sbx::wire
