#include "sandbox/guest_environment.h"

#include <algorithm>
#include <filesystem>

#include "base/file.h"
#include "base/random.h"

namespace sbx::sandbox {
namespace {

namespace fs = std::filesystem;

constexpr const char* kProxy = "http://gateway.docker.internal:3128";
// What stays in the sandbox: its loopback, and the networks that its Docker makes.
constexpr const char* kNoProxy = "localhost,127.0.0.1,::1,172.16.0.0/12";
// In the guest: the system's bundle, to which sbx-guest appends, and what it appends alone.
constexpr const char* kBundle = "/etc/ssl/certs/ca-certificates.crt";
constexpr const char* kExtra = "/etc/sbx/extra-ca.pem";

// Debian and its kin, Red Hat's, SUSE's.
constexpr const char* kHostFolders[] = {"/usr/local/share/ca-certificates", "/etc/pki/ca-trust/source/anchors",
                                        "/etc/pki/trust/anchors"};
constexpr std::size_t kMostAuthorities = 100;
constexpr std::string_view kBegin = "-----BEGIN CERTIFICATE-----";
constexpr std::string_view kEnd = "-----END CERTIFICATE-----";

void add_certificates(std::vector<std::string>& list, const std::string& text) {
  for (std::size_t at = text.find(kBegin); at != std::string::npos; at = text.find(kBegin, at + 1)) {
    const auto end = text.find(kEnd, at);
    if (end == std::string::npos || list.size() >= kMostAuthorities) return;
    list.push_back(text.substr(at, end + kEnd.size() - at) + "\n");
  }
}

}  // namespace

std::vector<std::string> gateway_environment(const std::string& sandbox_id, const std::string& root) {
  std::vector<std::string> list;
  const auto set = [&](const char* name, const std::string& value) { list.push_back(std::string(name) + "=" + value); };
  for (const char* name : {"HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy"}) set(name, kProxy);
  for (const char* name : {"NO_PROXY", "no_proxy"}) set(name, kNoProxy);
  set("PROXY_CA_CERT_B64", base64(root));
  set("SANDBOX_VM_ID", sandbox_id);
  // These replace the system's authorities, so they get them all.
  for (const char* name : {"SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "PIP_CERT", "GIT_SSL_CAINFO", "CURL_CA_BUNDLE",
                           "CARGO_HTTP_CAINFO", "AWS_CA_BUNDLE", "CODEX_CA_CERTIFICATE"}) {
    set(name, kBundle);
  }
  // These add to what the program brings along.
  for (const char* name : {"NODE_EXTRA_CA_CERTS", "DENO_CERT"}) set(name, kExtra);
  return list;
}

std::vector<std::string> host_authorities() {
  std::vector<std::string> list;
  for (const char* folder : kHostFolders) {
    std::vector<fs::path> files;
    std::error_code error;
    for (const auto& entry : fs::recursive_directory_iterator(folder, error)) files.push_back(entry.path());
    std::ranges::sort(files);
    for (const auto& file : files) {
      if (!fs::is_regular_file(file, error)) continue;
      if (const auto text = read_file(file, 1U << 20U)) add_certificates(list, *text);
    }
  }
  return list;
}

}  // namespace sbx::sandbox
