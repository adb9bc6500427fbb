#include "store/paths.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include "store/clock.h"

namespace sbx::store {
namespace {

TEST(Paths, FollowSbxHomeAndAppName) {
  ::setenv("SBX_HOME", "/tmp/h", 1);
  EXPECT_EQ(Paths::from_environment("")->home, "/tmp/h");
  EXPECT_EQ(Paths::from_environment("x")->home, "/tmp/h-x");
  EXPECT_FALSE(Paths::from_environment("../x"));
  ::unsetenv("SBX_HOME");
  ::setenv("HOME", "/home/me", 1);
  EXPECT_EQ(Paths::from_environment("")->home, "/home/me/.local/share/sbx");
  EXPECT_EQ(Paths::from_environment("x")->home, "/home/me/.local/share/sbx-x");
}

TEST(Paths, MoveSocketsOutOfALongHome) {
  const Paths near = Paths::for_home("/tmp/h");
  EXPECT_EQ(near.run, "/tmp/h/run");
  const Paths far = Paths::for_home("/tmp/" + std::string(120, 'x'));
  EXPECT_LT(far.daemon_socket().native().size(), 100U);
}

TEST(Clock, WritesAndReadsRfc3339) {
  EXPECT_EQ(rfc3339(1'000), "1970-01-01T00:00:01.000Z");
  EXPECT_EQ(*parse_rfc3339("1970-01-01T00:00:01.25Z"), 1250);
  EXPECT_EQ(*parse_rfc3339("1970-01-01T01:00:01+01:00"), 1000);
  EXPECT_FALSE(parse_rfc3339("yesterday"));
  EXPECT_FALSE(parse_rfc3339("1970-01-01T00:00:01"));
}

TEST(Clock, ReadsGoDurations) {
  EXPECT_EQ(*parse_duration("168h"), 168LL * 3'600'000);
  EXPECT_EQ(*parse_duration("1h30m"), 5'400'000);
  EXPECT_EQ(*parse_duration("500ms"), 500);
  for (const char* bad : {"", "5", "-3s", "h", "3 s", "1d"}) EXPECT_FALSE(parse_duration(bad)) << bad;
}

}  // namespace
}  // namespace sbx::store
