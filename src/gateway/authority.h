// The certificates that sandboxes trust: a root that sbxd keeps, an intermediate for each gateway (it may sign servers
// and nothing else), and a leaf for each name that a gateway intercepts. All ECDSA P-256, SHA-256.
// Linked by sbxd and sbx-gateway. Thread safety: a value type and free functions; an Issuer is used by one thread.
#pragma once

#include <openssl/evp.h>
#include <openssl/x509.h>

#include <chrono>
#include <memory>
#include <string>
#include <string_view>

#include "base/result.h"

namespace sbx::gateway {

// PEM. The key is PKCS #8, not encrypted: keep it as a secret.
struct CertifiedKey {
  std::string certificate;
  std::string key;
};

// A self-signed root: CA, path length 1, ten years. `name` is its common name.
Result<CertifiedKey> make_root(std::string_view name);
// An intermediate of `root` for one gateway: CA, path length 0, valid from an hour ago (guests' clocks) for `lifetime`.
Result<CertifiedKey> make_intermediate(const CertifiedKey& root, std::string_view name, std::chrono::seconds lifetime);
// Seconds until the first certificate of `pem` is no longer valid; negative when it is not any more.
Result<std::chrono::seconds> remaining_lifetime(std::string_view pem);

template <typename T, void (*Free)(T*)>
struct OpensslFree {
  void operator()(T* object) const { Free(object); }
};
using CertificatePtr = std::unique_ptr<X509, OpensslFree<X509, X509_free>>;
using KeyPtr = std::unique_ptr<EVP_PKEY, OpensslFree<EVP_PKEY, EVP_PKEY_free>>;

// Signs leaves with an intermediate. They share one key, made here, that exists nowhere else.
class Issuer {
 public:
  // kInvalid: not PEM, or the key is not the certificate's.
  static Result<Issuer> make(const CertifiedKey& intermediate);
  // A server certificate for a host name or an IP address, which the caller has validated.
  Result<CertificatePtr> issue(std::string_view host) const;
  X509* intermediate() const { return certificate_.get(); }
  EVP_PKEY* leaf_key() const { return leaf_key_.get(); }

 private:
  CertificatePtr certificate_;
  KeyPtr key_;
  KeyPtr leaf_key_;
};

}  // namespace sbx::gateway
