// CertificateAuthority: this instance's root, which its sandboxes trust. The key lies in HOME/authority.pem (0600), and
// leaves the daemon for nowhere: a gateway gets a short-lived intermediate of its own. Blocking (one small file), one
// thread at a time.
#pragma once

#include <filesystem>
#include <string>

#include "gateway/authority.h"

namespace sbx::sandbox {

class CertificateAuthority {
 public:
  // Reads the root, or makes one where there is none, or none that lives on for two months.
  static Result<CertificateAuthority> open(const std::filesystem::path& home);

  const std::string& root_certificate() const { return root_.certificate; }  // PEM
  // For the gateway of one sandbox.
  Result<gateway::CertifiedKey> intermediate(const std::string& sandbox_name) const;

 private:
  explicit CertificateAuthority(gateway::CertifiedKey root) : root_(std::move(root)) {}
  gateway::CertifiedKey root_;
};

}  // namespace sbx::sandbox
