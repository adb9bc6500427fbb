// `sbx exec`: argv, streams, statuses, signals, background commands.
#include <gtest/gtest.h>
#include <signal.h>

#include <fstream>
#include <thread>

#include "instance.h"

namespace sbx::test {
namespace {

class Exec : public ::testing::Test {
 protected:
  static void SetUpTestSuite() { sandbox = std::make_unique<Sandbox>(); }
  static void TearDownTestSuite() { sandbox.reset(); }
  static std::unique_ptr<Sandbox> sandbox;
};
std::unique_ptr<Sandbox> Exec::sandbox;

TEST_F(Exec, ArgvArrivesVerbatimEmptyElementsToo) {
  const auto outcome = sandbox->exec({"printf", "[%s]", "a b", "", "$HOME", "*", "-n", "ünï"});
  EXPECT_EQ(outcome.status, 0) << outcome.err;
  EXPECT_EQ(outcome.out, "[a b][][$HOME][*][-n][ünï]");
}

TEST_F(Exec, StdoutAndStderrStaySeparate) {
  const auto outcome = sandbox->shell("printf 'out\\0\\377'; printf err >&2");
  EXPECT_EQ(outcome.out, std::string("out\0\377", 5));
  EXPECT_EQ(outcome.err, "err");
}

TEST_F(Exec, ExitStatusesAreTheCommandsOwn) {
  for (const int status : {0, 1, 3, 77, 255}) {
    EXPECT_EQ(sandbox->shell("exit " + std::to_string(status)).status, status);
  }
  EXPECT_EQ(sandbox->shell("kill -TERM $$").status, 128 + SIGTERM);
}

TEST_F(Exec, WhatCannotBeRunIs127AndAMissingSandboxIs125) {
  const auto missing = sandbox->exec({"no-such-command"});
  EXPECT_EQ(missing.status, 127);
  EXPECT_NE((missing.out + missing.err).find("no-such-command"), std::string::npos);
  const auto nowhere = sbx({"exec", "no-such-sandbox", "true"});
  EXPECT_EQ(nowhere.status, 125);
  EXPECT_NE(nowhere.err.find("not found"), std::string::npos) << nowhere.err;
}

TEST_F(Exec, StdinIsBinaryExactAndItsEndIsSeen) {
  std::string input(3U << 20U, '\0');
  for (std::size_t i = 0; i < input.size(); ++i) input[i] = static_cast<char>(i * 2654435761U >> 13U);
  const auto outcome = sandbox->exec({"cat"}, input);
  EXPECT_EQ(outcome.status, 0) << outcome.err;
  EXPECT_TRUE(outcome.out == input) << outcome.out.size() << " bytes came back of " << input.size();
}

TEST_F(Exec, AHundredMebibytesPassThrough) {
  const auto outcome = sandbox->exec({"head", "-c", "134217728", "/dev/zero"});
  EXPECT_EQ(outcome.status, 0);
  EXPECT_EQ(outcome.out.size(), 134217728U);
}

TEST_F(Exec, UserFolderAndEnvironmentAreAsAsked) {
  EXPECT_EQ(sandbox->shell("id -un; id -u; pwd").out, "agent\n1000\n" + sandbox->workspace().string() + "\n");
  EXPECT_EQ(
      sbx({"exec", "-u", "root", "-w", "/etc", "-e", "A=b c", sandbox->name(), "sh", "-c", "id -u; pwd; echo $A"}).out,
      "0\n/etc\nb c\n");
  EXPECT_EQ(sandbox->shell("sudo id -u").out, "0\n");
}

TEST_F(Exec, FiftyAtOnceAllAnswer) {
  std::vector<std::thread> threads;
  std::atomic<int> right = 0;
  for (int i = 0; i < 50; ++i) {
    threads.emplace_back([&, i] {
      const auto outcome = sandbox->exec({"echo", std::to_string(i)});
      if (outcome.status == 0 && outcome.out == std::to_string(i) + "\n") ++right;
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(right, 50);
}

TEST_F(Exec, AKilledClientLeavesNoOrphan) {
  {
    auto client = Command(command_line({"exec", sandbox->name(), "sleep", "98765"})).start();
    ASSERT_TRUE(client);
    ASSERT_TRUE(eventually([] { return sandbox->exec({"pgrep", "-f", "sleep 98765"}).status == 0; }));
  }  // SIGKILL
  EXPECT_TRUE(eventually([] { return sandbox->exec({"pgrep", "-f", "sleep 98765"}).status == 1; }));
}

TEST_F(Exec, ABackgroundCommandRunsOnAndKeepsItsOutputAndStatus) {
  const auto started = sbx({"exec", "-d", sandbox->name(), "sh", "-c", "echo begun; sleep 1; echo done; exit 4"});
  ASSERT_EQ(started.status, 0) << started.err;
  const std::string id = started.out.substr(0, started.out.find('\n'));
  EXPECT_NE(sbx({"exec", "--list", sandbox->name()}).out.find(id), std::string::npos);
  EXPECT_EQ(sbx({"exec", "--wait", id, sandbox->name()}).status, 4);
  EXPECT_EQ(sbx({"exec", "--logs", id, sandbox->name()}).out, "begun\ndone\n");
}

}  // namespace
}  // namespace sbx::test
