// The sandbox's own Docker.
#include <gtest/gtest.h>

#include "instance.h"

namespace sbx::test {
namespace {

TEST(Docker, BuildsAndRunsAndKeepsImagesOverStop) {
  Sandbox sandbox;
  ASSERT_TRUE(write_file_atomically(sandbox.workspace() / "Dockerfile",
                                    "FROM scratch\nCOPY busybox /bin/busybox\nENTRYPOINT [\"/bin/busybox\"]\n", 0644));
  const auto built = sandbox.shell("cp /bin/busybox . && docker build -q -t box . && docker run --rm box echo hello");
  EXPECT_EQ(built.status, 0) << built.err;
  EXPECT_NE(built.out.find("hello\n"), std::string::npos) << built.out;
  const auto stopped = sbx({"stop", sandbox.name()});
  ASSERT_EQ(stopped.status, 0) << stopped.err;
  const auto again = sandbox.shell("docker run --rm --network none box echo again");
  EXPECT_EQ(again.out, "again\n") << again.err;
}

}  // namespace
}  // namespace sbx::test
