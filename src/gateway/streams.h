// The carriers of bytes that a gateway has: a connection to a server, a guest's tunnel, and either with bytes that were
// read from it already put back. One executor.
#pragma once

#include <boost/asio/ip/tcp.hpp>
#include <memory>
#include <string>

#include "wire/byte_stream.h"
#include "wire/http2_session.h"

namespace sbx::gateway {

using wire::Awaitable;

// What can be waited for without a buffer: most connections are idle, and there may be thousands.
class ByteStream : public wire::ByteStream {
 public:
  // Returns when read_some() would not wait, be it for bytes, the end or an error.
  virtual Awaitable<void> readable() = 0;
};

class SocketStream final : public ByteStream {
 public:
  explicit SocketStream(boost::asio::ip::tcp::socket socket) : socket_(std::move(socket)) {}
  Awaitable<void> readable() override;
  Awaitable<Result<std::size_t>> read_some(std::span<char> buffer) override;
  Awaitable<Result<void>> write(std::string_view data) override;
  Awaitable<Result<void>> finish() override;
  void reset() override;

 private:
  boost::asio::ip::tcp::socket socket_;
};

// Closes with RST instead of FIN, so that the peer sees a failure and not an end.
void abort_socket(boost::asio::ip::tcp::socket& socket);

class TunnelStream final : public ByteStream {
 public:
  // `early`: bytes that come before what is read from the tunnel.
  explicit TunnelStream(std::shared_ptr<wire::Http2Stream> tunnel, std::string early = {})
      : tunnel_(std::move(tunnel)), early_(std::move(early)) {}
  Awaitable<void> readable() override;
  Awaitable<Result<std::size_t>> read_some(std::span<char> buffer) override;
  Awaitable<Result<void>> write(std::string_view data) override { return tunnel_->write(data); }
  Awaitable<Result<void>> finish() override { return tunnel_->finish(); }
  void reset() override { tunnel_->reset(); }

 private:
  std::shared_ptr<wire::Http2Stream> tunnel_;
  std::string early_;
};

}  // namespace sbx::gateway
