#include "guest/workspaces.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace sbx::guest {
namespace {

TEST(Workspaces, OuterPathsComeBeforeInnerOnes) {
  const auto parsed = parse_workspaces(
      R"({"workspaces":[{"index":0,"path":"/a/b/c"},{"index":1,"path":"/a","readonly":true},{"index":2,"path":"/f","file":true}]})");
  ASSERT_TRUE(parsed) << parsed.error().describe();
  EXPECT_EQ((*parsed)[0].path, "/a");
  EXPECT_TRUE((*parsed)[0].readonly);
  EXPECT_EQ((*parsed)[2].path, "/a/b/c");
}

TEST(Workspaces, RelativeAndClimbingPathsAreRefused) {
  EXPECT_FALSE(parse_workspaces(R"({"workspaces":[{"index":0,"path":"a"}]})"));
  EXPECT_FALSE(parse_workspaces(R"({"workspaces":[{"index":0,"path":"/a/../b"}]})"));
  EXPECT_FALSE(parse_workspaces(R"({"workspaces":[{"index":0,"path":"/"}]})"));
  EXPECT_FALSE(parse_workspaces(R"({"workspaces":7})"));
}

TEST(Workspaces, OurMountPointsAreFoundLastFirstAndUnescaped) {
  EXPECT_THAT(our_mount_points("proc /proc proc rw 0 0\nsbx-workspaces /run/sbx/workspaces fuse rw 0 0\n"
                               "sbx-workspaces /home/my\\040project fuse rw 0 0\n"),
              testing::ElementsAre("/home/my project", "/run/sbx/workspaces"));
}

}  // namespace
}  // namespace sbx::guest
