#include "gateway/tls_stream.h"

#include <openssl/err.h>

#include <algorithm>
#include <cstring>

namespace sbx::gateway {

namespace {
constexpr std::size_t kPull = 16U << 10U;
constexpr std::size_t kPiece = 64U << 10U;  // encrypted before it is handed on
constexpr std::size_t kRecord = 16U << 10U;
constexpr std::size_t kOverhead = 64;  // of a record: its header, tag and type
}  // namespace

TlsStream::TlsStream(std::shared_ptr<ByteStream> inner, SslPtr ssl, const boost::asio::any_io_executor& executor)
    : inner_(std::move(inner)), ssl_(std::move(ssl)), flushed_(executor) {
  BIO* bio = BIO_new(wire_method());
  BIO_set_data(bio, &wire_);
  BIO_set_init(bio, 1);
  SSL_set_bio(ssl_.get(), bio, bio);
}

// Not OpenSSL's own memory BIO, which keeps all the room that it ever needed.
BIO_METHOD* TlsStream::wire_method() {
  static BIO_METHOD* const kMethod = [] {
    BIO_METHOD* method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "sbx wire");
    BIO_meth_set_read_ex(method, [](BIO* bio, char* into, std::size_t size, std::size_t* got) {
      auto& wire = *static_cast<Wire*>(BIO_get_data(bio));
      BIO_clear_retry_flags(bio);
      *got = std::min(size, wire.in.size() - wire.in_read);
      if (*got == 0) {
        BIO_set_retry_read(bio);
        return 0;
      }
      std::memcpy(into, wire.in.data() + wire.in_read, *got);
      wire.in_read += *got;
      if (wire.in_read == wire.in.size()) {
        std::string().swap(wire.in);  // its room too
        wire.in_read = 0;
      }
      return 1;
    });
    BIO_meth_set_write_ex(method, [](BIO* bio, const char* data, std::size_t size, std::size_t* written) {
      static_cast<Wire*>(BIO_get_data(bio))->out.append(data, size);
      *written = size;
      return 1;
    });
    BIO_meth_set_ctrl(method, [](BIO*, int command, long, void*) -> long { return command == BIO_CTRL_FLUSH ? 1 : 0; });
    return method;
  }();
  return kMethod;
}

std::unexpected<Error> TlsStream::failed(std::string_view what) {
  broken_ = true;
  const auto verdict = SSL_get_verify_result(ssl_.get());
  const auto reason = ERR_peek_error();
  std::string text = std::string(what) + ": ";
  const bool certificate = ERR_GET_REASON(reason) == SSL_R_CERTIFICATE_VERIFY_FAILED && verdict != X509_V_OK;
  if (certificate) {
    text += std::string("the server's certificate is not valid: ") + X509_verify_cert_error_string(verdict);
  } else if (const char* words = ERR_reason_error_string(reason); words != nullptr) {
    text += words;
  } else {
    text += "protocol error";
  }
  ERR_clear_error();
  return fail(certificate ? ErrorCode::kDenied : ErrorCode::kUnavailable, std::move(text));
}

Awaitable<Result<void>> TlsStream::pull() {
  co_await inner_->readable();
  std::string bytes(kPull, '\0');
  SBX_CO_TRY(const std::size_t n, co_await inner_->read_some(bytes), "TLS");
  if (n == 0) co_return fail(ErrorCode::kUnavailable, "the connection ended within TLS");
  bytes.resize(n);
  // OpenSSL asks for more only when it has taken all of what there was.
  wire_.in = std::move(bytes);
  wire_.in_read = 0;
  co_return Result<void>{};
}

Awaitable<Result<void>> TlsStream::flush() {
  while (!wire_.out.empty()) {
    if (flushing_) {
      co_await flushed_.wait();
      continue;
    }
    const std::string bytes = std::exchange(wire_.out, {});
    flushing_ = true;
    const auto written = co_await inner_->write(bytes);
    flushing_ = false;
    flushed_.notify();
    if (!written) {
      broken_ = true;
      co_return std::unexpected(written.error());
    }
  }
  co_return Result<void>{};
}

Awaitable<Result<void>> TlsStream::handshake() {
  for (;;) {
    ERR_clear_error();
    const int rc = SSL_do_handshake(ssl_.get());
    const int why = SSL_get_error(ssl_.get(), rc);
    if (rc != 1 && why != SSL_ERROR_WANT_READ) {
      auto error = failed("TLS handshake");
      (void)co_await flush();  // the alert
      co_return error;
    }
    SBX_CO_CHECK(co_await flush(), "TLS handshake");
    if (rc == 1) co_return Result<void>{};
    SBX_CO_CHECK(co_await pull(), "TLS handshake");
  }
}

std::string TlsStream::alpn() const {
  const unsigned char* name = nullptr;
  unsigned int size = 0;
  SSL_get0_alpn_selected(ssl_.get(), &name, &size);
  return name == nullptr ? std::string() : std::string(reinterpret_cast<const char*>(name), size);
}

Awaitable<void> TlsStream::readable() {
  while (!broken_) {
    ERR_clear_error();
    char byte = 0;
    std::size_t n = 0;
    const int rc = SSL_peek_ex(ssl_.get(), &byte, 1, &n);
    if (rc == 1 || SSL_get_error(ssl_.get(), rc) != SSL_ERROR_WANT_READ) break;
    // What goes wrong from here on goes wrong again when it is read.
    if (!co_await flush() || !co_await pull()) break;
  }
}

Awaitable<Result<std::size_t>> TlsStream::read_some(std::span<char> buffer) {
  for (;;) {
    if (broken_) co_return fail(ErrorCode::kUnavailable, "TLS has failed before");
    ERR_clear_error();
    std::size_t n = 0;
    const int rc = SSL_read_ex(ssl_.get(), buffer.data(), buffer.size(), &n);
    if (rc == 1) co_return n;
    const int why = SSL_get_error(ssl_.get(), rc);
    if (why == SSL_ERROR_ZERO_RETURN) co_return std::size_t{0};
    if (why != SSL_ERROR_WANT_READ) {
      auto error = failed("TLS");
      (void)co_await flush();
      co_return error;
    }
    SBX_CO_CHECK(co_await flush(), "TLS");  // answers to key updates
    SBX_CO_CHECK(co_await pull(), "TLS");
  }
}

Awaitable<Result<void>> TlsStream::write(std::string_view data) {
  while (!data.empty()) {
    if (broken_) co_return fail(ErrorCode::kUnavailable, "TLS has failed before");
    ERR_clear_error();
    const auto piece = data.substr(0, kPiece);
    std::size_t n = 0;
    wire_.out.reserve(wire_.out.size() + std::min(piece.size(), kRecord) + kOverhead);
    if (SSL_write_ex(ssl_.get(), piece.data(), piece.size(), &n) != 1) co_return failed("TLS");
    data.remove_prefix(n);
    SBX_CO_CHECK(co_await flush(), "TLS");
  }
  co_return Result<void>{};
}

Awaitable<Result<void>> TlsStream::finish() {
  if (broken_) co_return fail(ErrorCode::kUnavailable, "TLS has failed before");
  ERR_clear_error();
  (void)SSL_shutdown(ssl_.get());
  SBX_CO_CHECK(co_await flush(), "ending TLS");
  co_return co_await inner_->finish();
}

}  // namespace sbx::gateway
