#include "gateway/authority.h"

#include <gtest/gtest.h>
#include <openssl/pem.h>

#include "base/command.h"
#include "base/file.h"

namespace sbx::gateway {
namespace {

struct Chain {
  CertifiedKey root = make_root("sbx test root").value();
  CertifiedKey intermediate = make_intermediate(root, "gateway of a test", std::chrono::hours(24)).value();
  TemporaryFolder folder = TemporaryFolder::make("sbx-authority").value();

  std::string save(const std::string& name, const std::string& text) const {
    EXPECT_TRUE(write_file_atomically(folder.path() / name, text));
    return folder.path() / name;
  }
  // What openssl verify says of the certificate for the name.
  Result<std::string> verify(const std::string& option, const std::string& name, const std::string& pem) const {
    return Command({"/usr/bin/openssl", "verify", "-x509_strict", "-purpose", "sslserver", "-CAfile",
                    save("root.pem", root.certificate), "-untrusted", save("inter.pem", intermediate.certificate),
                    option, name, save("leaf.pem", pem)})
        .output();
  }
};

std::string pem_of(X509* certificate) {
  char* data = nullptr;
  BIO* out = BIO_new(BIO_s_mem());
  PEM_write_bio_X509(out, certificate);
  const auto size = BIO_get_mem_data(out, &data);
  std::string pem(data, static_cast<std::size_t>(size));
  BIO_free(out);
  return pem;
}

TEST(Authority, ALeafIsValidForItsNameAndNoOther) {
  const Chain chain;
  const auto issuer = Issuer::make(chain.intermediate).value();
  const auto leaf = issuer.issue("api.example.com");
  ASSERT_TRUE(leaf) << leaf.error().describe();
  const auto pem = pem_of(leaf->get());
  const auto good = chain.verify("-verify_hostname", "api.example.com", pem);
  EXPECT_TRUE(good) << good.error().describe();
  EXPECT_FALSE(chain.verify("-verify_hostname", "example.com", pem));
}

TEST(Authority, AnAddressGetsALeafToo) {
  const Chain chain;
  const auto issuer = Issuer::make(chain.intermediate).value();
  for (const auto* address : {"192.0.2.7", "2001:db8::1"}) {
    const auto good = chain.verify("-verify_ip", address, pem_of(issuer.issue(address).value().get()));
    EXPECT_TRUE(good) << good.error().describe();
  }
}

TEST(Authority, ANameIsNeverReadAsSyntax) {
  const Chain chain;
  const auto issuer = Issuer::make(chain.intermediate).value();
  const auto leaf = issuer.issue("a.example,DNS:evil.example");
  ASSERT_TRUE(leaf);
  EXPECT_FALSE(chain.verify("-verify_hostname", "evil.example", pem_of(leaf->get())));
}

TEST(Authority, ANameLongerThanACommonNameWorks) {
  const Chain chain;
  const auto issuer = Issuer::make(chain.intermediate).value();
  const std::string name = std::string(60, 'a') + "." + std::string(60, 'b') + ".example.com";
  const auto good = chain.verify("-verify_hostname", name, pem_of(issuer.issue(name).value().get()));
  EXPECT_TRUE(good) << good.error().describe();
}

TEST(Authority, AnIntermediateCannotMakeAnother) {
  Chain chain;
  const auto below = make_intermediate(chain.intermediate, "a thief", std::chrono::hours(1)).value();
  const auto issuer = Issuer::make(below).value();
  const auto pem = pem_of(issuer.issue("api.example.com").value().get());
  chain.intermediate.certificate += below.certificate;
  EXPECT_FALSE(chain.verify("-verify_hostname", "api.example.com", pem));
}

TEST(Authority, LifetimesEndWithTheIssuers) {
  const Chain chain;
  EXPECT_GT(remaining_lifetime(chain.root.certificate).value(), std::chrono::hours(24 * 3000));
  EXPECT_LE(remaining_lifetime(chain.intermediate.certificate).value(), std::chrono::hours(24));
  const auto issuer = Issuer::make(chain.intermediate).value();
  EXPECT_LE(remaining_lifetime(pem_of(issuer.issue("x.example").value().get())).value(), std::chrono::hours(24));
}

TEST(Authority, AKeyOfAnotherCertificateIsRefused) {
  const Chain chain;
  const auto issuer = Issuer::make({chain.intermediate.certificate, chain.root.key});
  ASSERT_FALSE(issuer);
  EXPECT_EQ(issuer.error().code, ErrorCode::kInvalid);
  EXPECT_FALSE(Issuer::make({"garbage", "garbage"}));
}

}  // namespace
}  // namespace sbx::gateway
