#include "guest/authorities.h"

#include <gtest/gtest.h>

#include "base/file.h"

namespace sbx::guest {
namespace {

namespace fs = std::filesystem;

TEST(Authorities, AreAppendedToTheBundleOnceAndLieWhereTheSystemFindsThem) {
  const auto folder = TemporaryFolder::make("sbx-authorities").value();
  const auto& root = folder.path();
  fs::create_directories(root / "etc/ssl/certs");
  ASSERT_TRUE(write_file_atomically(root / "etc/ssl/certs/ca-certificates.crt", "SYSTEM\n"));
  for (int i = 0; i < 2; ++i) ASSERT_TRUE(trust_authorities({"ONE\n", "TWO\n"}, root));
  EXPECT_EQ(read_file(root / "etc/ssl/certs/ca-certificates.crt").value(), "SYSTEM\n\nONE\nTWO\n");
  EXPECT_EQ(read_file(root / "etc/sbx/extra-ca.pem").value(), "ONE\nTWO\n");
  EXPECT_EQ(read_file(root / "usr/local/share/ca-certificates/sbx-1.crt").value(), "TWO\n");
  ASSERT_TRUE(trust_authorities({"NEW\n"}, root));
  EXPECT_TRUE(read_file(root / "etc/ssl/certs/ca-certificates.crt").value().ends_with("\nNEW\n"));
}

TEST(Authorities, WithoutAnyNothingIsTouched) {
  const auto folder = TemporaryFolder::make("sbx-authorities").value();
  ASSERT_TRUE(trust_authorities({}, folder.path()));
  EXPECT_TRUE(fs::is_empty(folder.path()));
}

}  // namespace
}  // namespace sbx::guest
