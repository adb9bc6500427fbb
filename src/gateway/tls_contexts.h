// How a gateway speaks TLS to either side: to a guest with a leaf of its own for the name that the guest asked for, to
// servers as a client that verifies chain and name against the host's authorities. TLS 1.2 and 1.3. One executor.
#pragma once

#include <openssl/ssl.h>

#include <chrono>
#include <list>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "gateway/authority.h"
#include "gateway/tls_stream.h"

namespace sbx::gateway {

using SslContextPtr = std::unique_ptr<SSL_CTX, OpensslFree<SSL_CTX, SSL_CTX_free>>;

class UpstreamTls {
 public:
  // Reads all of the bundle (PEM), so that the file is not needed any more.
  static Result<UpstreamTls> make(const std::string& ca_bundle);
  // For a connection to `host`, a name or an address. `protocols` are offered by ALPN, in this order.
  Result<SslPtr> connect(const std::string& host, const std::vector<std::string>& protocols) const;

 private:
  SslContextPtr context_;
};

class GuestTls {
 public:
  static Result<GuestTls> make(const CertifiedKey& intermediate);
  // As a server for `host`; `protocol` is the one that ALPN will choose (empty: none).
  Result<SslPtr> accept(const std::string& host, std::string protocol);

 private:
  struct Leaf {
    CertificatePtr certificate;
    std::chrono::steady_clock::time_point made;
  };
  Result<X509*> leaf_for(const std::string& host);

  std::unique_ptr<Issuer> issuer_;
  SslContextPtr context_;
  std::map<std::string, Leaf> leaves_;  // at most kMaxLeaves
};

}  // namespace sbx::gateway
