#include "guest/exec_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cerrno>

#include "guest/boot.h"

namespace sbx::guest {
namespace {

using testing::Contains;
using testing::ElementsAre;
using testing::Not;

TEST(ExecPlan, AHeadKeepsEmptyArgumentsAndRefusesWhatCannotBeRun) {
  const auto head = parse_exec_head(R"({"id":"e1","argv":["printf","","a b"],"tty":true,"rows":50})");
  ASSERT_TRUE(head) << head.error().describe();
  EXPECT_THAT(head->argv, ElementsAre("printf", "", "a b"));
  EXPECT_EQ(head->rows, 50);
  EXPECT_FALSE(parse_exec_head(R"({"id":"e1","argv":[]})"));
  EXPECT_FALSE(parse_exec_head(R"({"id":"../x","argv":["a"]})"));
  EXPECT_FALSE(parse_exec_head(R"({"id":"e","argv":["a\u0000b"]})"));
  EXPECT_FALSE(parse_exec_head(R"({"id":"e","argv":"ls"})"));
  EXPECT_FALSE(parse_exec_head("{"));
}

TEST(ExecPlan, TheHeadsEnvironmentWinsOverIdentitySystemAndDefaults) {
  User user;
  user.name = "agent";
  user.home = "/home/agent";
  const auto environment = build_environment(user, true, "# comment\nPATH=\"/opt/bin:/bin\"\nA=1\n", {"A=2", "B=2"},
                                             {"B=3", "TERM=dumb", "LANG"});
  EXPECT_THAT(environment, Contains("PATH=/opt/bin:/bin"));
  EXPECT_THAT(environment, Contains("A=2"));
  EXPECT_THAT(environment, Contains("B=3"));
  EXPECT_THAT(environment, Contains("TERM=dumb"));
  EXPECT_THAT(environment, Contains("BASH_ENV=/etc/sandbox-persistent.sh"));
  EXPECT_THAT(environment, Not(Contains("LANG=C.UTF-8")));
  EXPECT_EQ(value_of(environment, "HOME"), "/home/agent");
}

TEST(ExecPlan, AProgramIsLookedUpInPathUnlessItHasASlash) {
  EXPECT_THAT(program_candidates("ls", "/a:/b:"), ElementsAre("/a/ls", "/b/ls"));
  EXPECT_THAT(program_candidates("./ls", "/a"), ElementsAre("./ls"));
  EXPECT_TRUE(program_candidates("", "/a").empty());
}

TEST(ExecPlan, FailuresAreToldAsDockerTellsThem) {
  ExecHead head;
  head.argv = {"nosuch"};
  auto failure = describe_failure(SpawnStage::kProgram, ENOENT, head, "/");
  EXPECT_EQ(failure.exit_code, 127);
  EXPECT_EQ(failure.message, "exec: \"nosuch\": executable file not found in $PATH");
  head.argv = {"/etc/passwd"};
  failure = describe_failure(SpawnStage::kProgram, EACCES, head, "/");
  EXPECT_EQ(failure.exit_code, 126);
  EXPECT_EQ(failure.message, "exec: \"/etc/passwd\": permission denied");
  EXPECT_EQ(describe_failure(SpawnStage::kFolder, ENOENT, head, "/nope").exit_code, 127);
}

TEST(Boot, AKernelArgumentIsAWholeWord) {
  EXPECT_EQ(kernel_argument("quiet xsbx.docker=1 sbx.docker=0\n", "sbx.docker"), "0");
  EXPECT_EQ(kernel_argument("quiet", "sbx.docker"), "");
}

}  // namespace
}  // namespace sbx::guest
