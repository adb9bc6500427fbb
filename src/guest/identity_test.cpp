#include "guest/identity.h"

#include <gtest/gtest.h>

namespace sbx::guest {
namespace {

TEST(Identity, IsCheckedBeforeAnythingIsApplied) {
  const auto identity =
      parse_identity(R"({"hostname":"api-shell","entropy":"AAEC/w==","time_ns":5,"environment":["A=1"]})");
  ASSERT_TRUE(identity) << identity.error().describe();
  EXPECT_EQ(identity->entropy, std::string("\0\1\2\xff", 4));
  EXPECT_FALSE(parse_identity(R"({"entropy":"*"})"));
  EXPECT_FALSE(parse_identity(R"({"machine_id":"short"})"));
  EXPECT_FALSE(parse_identity(R"({"hostname":"a b"})"));
  EXPECT_FALSE(parse_identity(R"({"time_ns":"now"})"));
}

TEST(Identity, HostsKeepsEveryOtherLine) {
  EXPECT_EQ(hosts_with("127.0.0.1 localhost\n127.0.1.1 template\n::1 localhost", "box"),
            "127.0.0.1 localhost\n::1 localhost\n127.0.1.1\tbox\n");
}

TEST(Identity, TheProfileQuotesForSh) {
  EXPECT_NE(profile_script({"A=it's $HOME"}).find("export A='it'\\''s $HOME'\n"), std::string::npos);
}

}  // namespace
}  // namespace sbx::guest
