#include "gateway/tls_stream.h"

#include <openssl/err.h>

#include <array>

namespace sbx::gateway {

namespace {
constexpr std::size_t kPull = 16U << 10U;
constexpr std::size_t kPiece = 64U << 10U;  // encrypted before it is handed on
}  // namespace

TlsStream::TlsStream(std::shared_ptr<ByteStream> inner, SslPtr ssl, const boost::asio::any_io_executor& executor)
    : inner_(std::move(inner)), ssl_(std::move(ssl)), flushed_(executor) {
  SSL_set_bio(ssl_.get(), BIO_new(BIO_s_mem()), BIO_new(BIO_s_mem()));
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
  std::array<char, kPull> buffer;
  SBX_CO_TRY(const std::size_t n, co_await inner_->read_some(buffer), "TLS");
  if (n == 0) co_return fail(ErrorCode::kUnavailable, "the connection ended within TLS");
  BIO_write(SSL_get_rbio(ssl_.get()), buffer.data(), static_cast<int>(n));
  co_return Result<void>{};
}

Awaitable<Result<void>> TlsStream::flush() {
  BIO* out = SSL_get_wbio(ssl_.get());
  while (BIO_ctrl_pending(out) > 0) {
    if (flushing_) {
      co_await flushed_.wait();
      continue;
    }
    std::string bytes(BIO_ctrl_pending(out), '\0');
    BIO_read(out, bytes.data(), static_cast<int>(bytes.size()));
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
