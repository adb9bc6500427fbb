#include "guest/users.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace sbx::guest {
namespace {

constexpr std::string_view kPasswd =
    "root:x:0:0:root:/root:/bin/bash\nbroken line\nagent:x:1000:1000::/home/agent:/bin/bash\n42:x:7:8::/odd:\n";
constexpr std::string_view kGroup = "root:x:0:\ndocker:x:988:agent,other\nsudo:x:27:agent\nagent:x:1000:\n";

TEST(Users, EmptyMeansTheAgentWithItsSupplementaryGroups) {
  const auto user = resolve_user("", kPasswd, kGroup);
  ASSERT_TRUE(user);
  EXPECT_EQ(user->uid, 1000U);
  EXPECT_EQ(user->home, "/home/agent");
  EXPECT_THAT(user->groups, testing::ElementsAre(988, 27));
}

TEST(Users, AnImageWithoutAgentFallsBackToRoot) {
  EXPECT_EQ(resolve_user("", "root:x:0:0::/root:/bin/sh\n", "")->home, "/root");
  EXPECT_EQ(resolve_user("", "", "")->uid, 0U);
}

TEST(Users, AKnownNumberGetsItsNameAndAnUnknownOneIsAllowed) {
  EXPECT_EQ(resolve_user("1000", kPasswd, kGroup)->name, "agent");
  const auto unknown = resolve_user("4711:12", kPasswd, kGroup);
  ASSERT_TRUE(unknown);
  EXPECT_EQ(unknown->uid, 4711U);
  EXPECT_EQ(unknown->gid, 12U);
  EXPECT_EQ(unknown->home, "/");
}

TEST(Users, ANameWinsOverANumberAndAnEmptyShellIsSh) {
  const auto user = resolve_user("42", kPasswd, kGroup);
  EXPECT_EQ(user->uid, 7U);
  EXPECT_EQ(user->shell, "/bin/sh");
}

TEST(Users, AnExplicitGroupReplacesTheSupplementaryOnes) {
  const auto user = resolve_user("agent:docker", kPasswd, kGroup);
  EXPECT_EQ(user->gid, 988U);
  EXPECT_TRUE(user->groups.empty());
}

TEST(Users, UnknownNamesAreRefusedInDockersWords) {
  EXPECT_EQ(resolve_user("nosuch", kPasswd, kGroup).error().message,
            "unable to find user nosuch: no matching entries in passwd file");
  EXPECT_EQ(resolve_user("agent:nosuch", kPasswd, kGroup).error().message,
            "unable to find group nosuch: no matching entries in group file");
}

}  // namespace
}  // namespace sbx::guest
