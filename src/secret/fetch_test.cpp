#include "secret/fetch.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include "base/file.h"

namespace sbx::secret {
namespace {

using namespace std::chrono_literals;

Result<LockedString> run(const std::string& script, FetchOptions options = {}) {
  return fetch(shell_command(script), options);
}

TEST(Fetch, TakesWhatACommandPrintsTrimmed) {
  const auto value = run("printf '\\n  a value \\n\\n'; echo noise >&2");
  ASSERT_TRUE(value) << value.error().message;
  EXPECT_EQ(value->reveal(), "a value");
}

TEST(Fetch, RunsInAFreshEmptyFolderWithTheGivenEnvironment) {
  const auto folder = run("ls -A | wc -l; pwd", {.environment = {{"MARK", "x"}}});
  ASSERT_TRUE(folder) << folder.error().message;
  EXPECT_TRUE(folder->reveal().starts_with("0\n/")) << folder->reveal();
  EXPECT_FALSE(std::filesystem::exists(folder->reveal().substr(2)));
  EXPECT_EQ(run("echo $MARK", {.environment = {{"MARK", "x"}}})->reveal(), "x");
  EXPECT_EQ(run("wc -c")->reveal(), "0");  // nothing on stdin
}

TEST(Fetch, SaysWhatWentWrongButNotWhatTheProgramSaid) {
  const auto failed = run("echo hunter2 >&2; echo hunter3; exit 3");
  ASSERT_FALSE(failed);
  EXPECT_EQ(failed.error().code, ErrorCode::kUnavailable);
  EXPECT_NE(failed.error().message.find("exit status 3"), std::string::npos);
  EXPECT_EQ(failed.error().describe().find("hunter"), std::string::npos);
  const auto shown = run("echo reason >&2; echo hunter3; exit 3", {.show_error = true});
  EXPECT_NE(shown.error().message.find("reason"), std::string::npos);
  EXPECT_EQ(shown.error().describe().find("hunter3"), std::string::npos);
  EXPECT_FALSE(run("true"));
  EXPECT_FALSE(run("head -c 70000 /dev/zero | tr '\\0' x"));
  EXPECT_NE(fetch({"no-such-program-of-ours"}, {}).error().message.find("not installed"), std::string::npos);
}

TEST(Fetch, EndsAProgramThatTakesTooLongAndItsChildren) {
  auto folder = TemporaryFolder::make("sbx-fetch").value();
  const std::string pid_file = folder.path() / "pid";
  const auto slow = run("(sleep 600 & echo $! > " + pid_file + "; wait)", {.patience = 3s});
  ASSERT_FALSE(slow);
  EXPECT_EQ(slow.error().code, ErrorCode::kTimeout);
  const int pid = std::atoi(read_file(pid_file).value_or("0").c_str());
  ASSERT_GT(pid, 0);
  std::string state = "R";
  for (int i = 0; i < 6000 && !state.empty() && state != "Z"; ++i) {
    const auto stat = read_file("/proc/" + std::to_string(pid) + "/stat");
    state = stat ? stat->substr(stat->rfind(')') + 2, 1) : "";
    ::usleep(10'000);
  }
  EXPECT_TRUE(state.empty() || state == "Z") << "the sleep goes on";
  EXPECT_EQ(run("exec >&-; sleep 600", {.patience = 300ms}).error().code, ErrorCode::kTimeout);
}

TEST(Fetch, ReadsReferencesByTheToolsOfTheirService) {
  EXPECT_EQ(reference_command("op://vault/item/field").value(),
            (std::vector<std::string>{"op", "read", "--no-newline", "op://vault/item/field"}));
  const auto aws = reference_command("arn:aws:secretsmanager:eu-west-1:123456789012:secret:key-AbCdEf").value();
  EXPECT_EQ(aws[0], "aws");
  EXPECT_EQ(aws.back(), "eu-west-1");
  for (const char* bad : {"", "vault/item", "arn:aws:s3:::bucket", "--help", "op://a\nb"})
    EXPECT_FALSE(reference_command(bad)) << bad;
}

TEST(Fetch, FindsTheToolAlongTheGivenPath) {
  auto folder = TemporaryFolder::make("sbx-fetch").value();
  ASSERT_TRUE(write_file_atomically(folder.path() / "op", "#!/bin/sh\necho \"$* $OP_ACCOUNT\"\n", 0755));
  const auto value =
      fetch(reference_command("op://v/i/f").value(),
            {.environment = {{"PATH", folder.path().string() + ":/usr/bin:/bin"}, {"OP_ACCOUNT", "me"}}});
  ASSERT_TRUE(value) << value.error().message;
  EXPECT_EQ(value->reveal(), "read --no-newline op://v/i/f me");
}

}  // namespace
}  // namespace sbx::secret
