#include "sandbox/names.h"

#include <gtest/gtest.h>

namespace sbx::sandbox {
namespace {

TEST(Names, AcceptsWhatTheReferenceAccepts) {
  for (const char* name : {"ab", "api-shell", "a.b", "A1", "1-2"}) EXPECT_TRUE(check_name(name)) << name;
  EXPECT_TRUE(check_name(std::string(63, 'a')));
}

TEST(Names, RefusesEverythingElse) {
  for (const char* name : {"", "a", "-ab", "ab-", ".ab", "a_b", "a+b", "a b", "default", "a/b", "\xc3\xa4\xc3\xa4"}) {
    EXPECT_FALSE(check_name(name)) << name;
  }
  EXPECT_FALSE(check_name(std::string(64, 'a')));
}

TEST(Names, DerivesFromAgentAndFolder) {
  EXPECT_EQ(derive_name("claude", "/home/me/my_project"), "claude-my-project");
  EXPECT_EQ(derive_name("shell", "/x/we  ird__"), "shell-we-ird");
  EXPECT_EQ(derive_name("shell", "/"), "shell");
  EXPECT_TRUE(check_name(derive_name("shell", "/x/" + std::string(200, 'y'))));
}

}  // namespace
}  // namespace sbx::sandbox
