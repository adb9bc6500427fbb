#include "sandbox/certificate_authority.h"

#include <sys/stat.h>

#include "base/file.h"

namespace sbx::sandbox {
namespace {

constexpr std::string_view kRootName = "sbx Sandboxes Proxy CA";
constexpr std::string_view kCertificateBegins = "-----BEGIN CERTIFICATE-----";
constexpr std::chrono::hours kLeastLifetime{24 * 60};
constexpr std::chrono::hours kIntermediateLifetime{48};

Result<gateway::CertifiedKey> read_root(const std::filesystem::path& path) {
  struct stat status {};
  if (::stat(path.c_str(), &status) != 0) return fail_errno(path.native(), errno);
  if ((status.st_mode & 077) != 0) {
    return fail(ErrorCode::kDenied, path.native() +
                                        " may be read by others, so its key is no secret any more; remove "
                                        "it, and a new one is made (running sandboxes trust the old one)");
  }
  const auto text = SBX_TRY(read_file(path, 64U << 10U), "reading the authority");
  const auto certificate = text.find(kCertificateBegins);
  if (certificate == std::string::npos) return fail(ErrorCode::kInvalid, path.native() + " holds no certificate");
  return gateway::CertifiedKey{text.substr(certificate), text.substr(0, certificate)};
}

}  // namespace

Result<CertificateAuthority> CertificateAuthority::open(const std::filesystem::path& home) {
  const auto path = home / "authority.pem";
  auto root = read_root(path);
  if (!root && root.error().code == ErrorCode::kDenied) return std::unexpected(root.error());
  if (root) {
    const auto left = gateway::remaining_lifetime(root->certificate);
    if (left && *left > kLeastLifetime && gateway::make_intermediate(*root, "trial", kIntermediateLifetime)) {
      return CertificateAuthority(*std::move(root));
    }
  }
  auto made = SBX_TRY(gateway::make_root(kRootName), "making the root certificate");
  SBX_CHECK(write_file_atomically(path, made.key + made.certificate, 0600), "keeping the root certificate");
  return CertificateAuthority(std::move(made));
}

Result<gateway::CertifiedKey> CertificateAuthority::intermediate(const std::string& sandbox_name) const {
  return gateway::make_intermediate(root_, "sbx gateway of " + sandbox_name, kIntermediateLifetime);
}

}  // namespace sbx::sandbox
