#include "gateway/tls_contexts.h"

#include <arpa/inet.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>

#include <algorithm>
#include <array>

namespace sbx::gateway {
namespace {

constexpr std::size_t kMaxLeaves = 1000;
constexpr std::chrono::hours kLeafAge{12};

std::unexpected<Error> fail_openssl(std::string_view what) {
  std::array<char, 256> text{};
  ERR_error_string_n(ERR_get_error(), text.data(), text.size());
  ERR_clear_error();
  return fail(ErrorCode::kInternal, std::string(what) + ": " + text.data());
}

bool is_address(const std::string& host) {
  std::array<unsigned char, 16> bytes{};
  return ::inet_pton(AF_INET, host.c_str(), bytes.data()) == 1 ||
         ::inet_pton(AF_INET6, host.c_str(), bytes.data()) == 1;
}

// The protocol that a server-side SSL will choose lies in its application data.
void free_protocol(void*, void* data, CRYPTO_EX_DATA*, int, long, void*) { delete static_cast<std::string*>(data); }
int protocol_index() {
  static const int index = SSL_get_ex_new_index(0, nullptr, nullptr, nullptr, free_protocol);
  return index;
}

int choose_protocol(SSL* ssl, const unsigned char** out, unsigned char* out_size, const unsigned char* offered,
                    unsigned int offered_size, void*) {
  const auto* wanted = static_cast<const std::string*>(SSL_get_ex_data(ssl, protocol_index()));
  if (wanted == nullptr || wanted->empty()) return SSL_TLSEXT_ERR_NOACK;
  for (unsigned int at = 0; at < offered_size; at += 1U + offered[at]) {
    const std::string_view name(reinterpret_cast<const char*>(offered) + at + 1, offered[at]);
    if (name != *wanted) continue;
    *out = offered + at + 1;
    *out_size = offered[at];
    return SSL_TLSEXT_ERR_OK;
  }
  return SSL_TLSEXT_ERR_ALERT_FATAL;
}

void set_common_options(SSL_CTX* context) {
  SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION);
  SSL_CTX_set_options(context, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
  SSL_CTX_set_mode(context, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE);
}

}  // namespace

Result<UpstreamTls> UpstreamTls::make(const std::string& ca_bundle) {
  UpstreamTls tls;
  tls.context_.reset(SSL_CTX_new(TLS_client_method()));
  if (!tls.context_) return fail_openssl("TLS");
  set_common_options(tls.context_.get());
  if (SSL_CTX_load_verify_file(tls.context_.get(), ca_bundle.c_str()) != 1) {
    ERR_clear_error();
    return fail(ErrorCode::kNotFound,
                "no certificate authorities could be read from " + ca_bundle + "; install the package ca-certificates");
  }
  SSL_CTX_set_verify(tls.context_.get(), SSL_VERIFY_PEER, nullptr);
  return tls;
}

Result<SslPtr> UpstreamTls::connect(const std::string& host, const std::vector<std::string>& protocols) const {
  SslPtr ssl(SSL_new(context_.get()));
  if (!ssl) return fail_openssl("TLS");
  SSL_set_connect_state(ssl.get());
  if (is_address(host)) {
    if (X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl.get()), host.c_str()) != 1) return fail_openssl("TLS");
  } else {
    SSL_set_hostflags(ssl.get(), X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
    if (SSL_set1_host(ssl.get(), host.c_str()) != 1 || SSL_set_tlsext_host_name(ssl.get(), host.c_str()) != 1) {
      return fail_openssl("TLS");
    }
  }
  std::string offer;
  for (const auto& protocol : protocols) offer += static_cast<char>(protocol.size()) + protocol;
  if (!offer.empty() && SSL_set_alpn_protos(ssl.get(), reinterpret_cast<const unsigned char*>(offer.data()),
                                            static_cast<unsigned>(offer.size())) != 0) {
    return fail_openssl("TLS");
  }
  return ssl;
}

Result<GuestTls> GuestTls::make(const CertifiedKey& intermediate) {
  GuestTls tls;
  tls.issuer_ = std::make_unique<Issuer>(SBX_TRY(Issuer::make(intermediate), "reading the gateway's authority"));
  tls.context_.reset(SSL_CTX_new(TLS_server_method()));
  if (!tls.context_) return fail_openssl("TLS");
  set_common_options(tls.context_.get());
  SSL_CTX_set_alpn_select_cb(tls.context_.get(), choose_protocol, nullptr);
  static constexpr std::string_view kSession = "sbx";
  SSL_CTX_set_session_id_context(tls.context_.get(), reinterpret_cast<const unsigned char*>(kSession.data()),
                                 kSession.size());
  return tls;
}

Result<X509*> GuestTls::leaf_for(const std::string& host) {
  const auto now = std::chrono::steady_clock::now();
  if (auto found = leaves_.find(host); found != leaves_.end()) {
    if (now - found->second.made < kLeafAge) return found->second.certificate.get();
    leaves_.erase(found);
  }
  if (leaves_.size() >= kMaxLeaves) {
    leaves_.erase(std::ranges::min_element(leaves_, {}, [](const auto& entry) { return entry.second.made; }));
  }
  auto certificate = SBX_TRY(issuer_->issue(host), "making a certificate for " + host);
  return leaves_.emplace(host, Leaf{std::move(certificate), now}).first->second.certificate.get();
}

Result<SslPtr> GuestTls::accept(const std::string& host, std::string protocol) {
  auto* leaf = SBX_TRY(leaf_for(host), "accepting TLS");
  SslPtr ssl(SSL_new(context_.get()));
  if (!ssl || SSL_use_certificate(ssl.get(), leaf) != 1 || SSL_use_PrivateKey(ssl.get(), issuer_->leaf_key()) != 1 ||
      SSL_add1_chain_cert(ssl.get(), issuer_->intermediate()) != 1) {
    return fail_openssl("TLS");
  }
  SSL_set_ex_data(ssl.get(), protocol_index(), new std::string(std::move(protocol)));
  SSL_set_accept_state(ssl.get());
  return ssl;
}

}  // namespace sbx::gateway
