#include "sandbox/gateway_config.h"

#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/stat.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "sandbox/certificate_authority.h"
#include "sandbox/guest_environment.h"

namespace sbx::sandbox {
namespace {

using nlohmann::json;

TEST(GatewayConfig, IsTheDocumentOfTheProtocol) {
  ::setenv("HTTPS_PROXY", "http://u:p@proxy.example:3128", 1);
  ::setenv("NO_PROXY", "intern.example", 1);
  const json policy = {{"rules", json::array()}};
  GatewayConfigParts parts;
  parts.sandbox_id = "uuid";
  parts.name = "a \"name\"";
  parts.policy = &policy;
  parts.intermediate = {"CERT\n", "KEY\nMORE\n"};
  parts.root = "ROOT\n";
  parts.credentials = R"([{"kind":"service","value":"s"}])";
  const auto config = json::parse(gateway_config(parts), nullptr, false);
  ::unsetenv("HTTPS_PROXY");
  ::unsetenv("NO_PROXY");
  ASSERT_TRUE(config.is_object());
  EXPECT_EQ(config["name"], "a \"name\"");
  EXPECT_EQ(config["policy"], policy);
  EXPECT_EQ(config["authority"]["certificate"], "CERT\n");
  EXPECT_EQ(config["authority"]["key"], "KEY\nMORE\n");
  EXPECT_EQ(config["authority"]["root"], "ROOT\n");
  EXPECT_EQ(config["credentials"][0]["value"], "s");
  EXPECT_EQ(config["upstream_proxy"]["url"], "http://u:p@proxy.example:3128");
  EXPECT_EQ(config["upstream_proxy"]["no_proxy"], "intern.example");
}

TEST(CertificateAuthority, KeepsItsRootAndItsKeyToItself) {
  const auto folder = TemporaryFolder::make("sbx-authority").value();
  const auto first = CertificateAuthority::open(folder.path()).value();
  const auto path = folder.path() / "authority.pem";
  struct stat status {};
  ASSERT_EQ(::stat(path.c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777U, 0600U);
  const auto second = CertificateAuthority::open(folder.path()).value();
  EXPECT_EQ(first.root_certificate(), second.root_certificate());
  const auto one = first.intermediate("box").value();
  const auto two = second.intermediate("box").value();
  EXPECT_NE(one.certificate, two.certificate);
  EXPECT_LT(gateway::remaining_lifetime(one.certificate).value(), std::chrono::hours(49));
  ::chmod(path.c_str(), 0644);
  EXPECT_EQ(CertificateAuthority::open(folder.path()).error().code, ErrorCode::kDenied);
}

TEST(CertificateAuthority, ABrokenFileIsReplaced) {
  const auto folder = TemporaryFolder::make("sbx-authority").value();
  ASSERT_TRUE(write_file_atomically(folder.path() / "authority.pem", "-----BEGIN CERTIFICATE-----\nhalf"));
  const auto authority = CertificateAuthority::open(folder.path());
  ASSERT_TRUE(authority) << authority.error().describe();
  EXPECT_TRUE(authority->intermediate("box"));
}

TEST(GuestEnvironment, NamesTheProxyInBothCasesAndTheAuthorities) {
  const auto list = gateway_environment("uuid", "ROOT\n");
  const auto has = [&](const std::string& entry) { return std::ranges::find(list, entry) != list.end(); };
  for (const char* name : {"HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy"}) {
    EXPECT_TRUE(has(std::string(name) + "=http://gateway.docker.internal:3128"));
  }
  EXPECT_TRUE(has("PROXY_CA_CERT_B64=Uk9PVAo="));
  EXPECT_TRUE(has("SANDBOX_VM_ID=uuid"));
  EXPECT_TRUE(has("SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt"));
  EXPECT_TRUE(has("NODE_EXTRA_CA_CERTS=/etc/sbx/extra-ca.pem"));
}

}  // namespace
}  // namespace sbx::sandbox
