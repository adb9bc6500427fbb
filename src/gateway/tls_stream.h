// TLS over any ByteStream, by OpenSSL with memory in between that is given back when nothing is under way. One
// executor; one reader and one writer at a time.
#pragma once

#include <openssl/ssl.h>

#include <memory>
#include <string>

#include "gateway/authority.h"
#include "gateway/streams.h"
#include "wire/signal.h"

namespace sbx::gateway {

using SslPtr = std::unique_ptr<SSL, OpensslFree<SSL, SSL_free>>;

class TlsStream final : public ByteStream {
 public:
  // `ssl` is set up to accept or to connect, with everything but its transport.
  TlsStream(std::shared_ptr<ByteStream> inner, SslPtr ssl, const boost::asio::any_io_executor& executor);

  // kDenied: the peer's certificate is not valid for its name; the message says why. kUnavailable: anything else.
  Awaitable<Result<void>> handshake();
  // After the handshake; empty: none was agreed on.
  std::string alpn() const;

  // An end without close_notify is an error: something may be missing.
  Awaitable<void> readable() override;
  Awaitable<Result<std::size_t>> read_some(std::span<char> buffer) override;
  Awaitable<Result<void>> write(std::string_view data) override;
  Awaitable<Result<void>> finish() override;
  void reset() override { inner_->reset(); }

 private:
  // What OpenSSL reads and writes instead of a socket.
  struct Wire {
    std::string in;
    std::size_t in_read = 0;
    std::string out;
  };
  static BIO_METHOD* wire_method();
  Awaitable<Result<void>> pull();
  Awaitable<Result<void>> flush();
  std::unexpected<Error> failed(std::string_view what);

  std::shared_ptr<ByteStream> inner_;
  Wire wire_;
  SslPtr ssl_;
  wire::Signal flushed_;
  bool flushing_ = false;
  bool broken_ = false;
};

}  // namespace sbx::gateway
