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
  EXPECT_NE(nowhere.err.find("sandbox 'no-such-sandbox' not found"), std::string::npos) << nowhere.err;
  const auto as_json = sbx({"exec", "--json", "no-such-sandbox", "true"});
  EXPECT_EQ(as_json.status, 125);
  EXPECT_EQ(nlohmann::json::parse(as_json.err, nullptr, false)["error"]["code"], "not_found") << as_json.err;
  EXPECT_EQ(sandbox->exec({"/etc/passwd"}).status, 126);
  EXPECT_EQ(sandbox->exec({"/no/such/file"}).status, 127);
  EXPECT_EQ(sbx({"exec", "-w", "/no/such/folder", sandbox->name(), "true"}).status, 127);
  EXPECT_EQ(sbx({"exec", "-u", "no-such-user", sandbox->name(), "true"}).status, 127);
}

TEST_F(Exec, StdinIsBinaryExactAndItsEndIsSeen) {
  std::string input(3U << 20U, '\0');
  for (std::size_t i = 0; i < input.size(); ++i) input[i] = static_cast<char>(i * 2654435761U >> 13U);
  const auto outcome = sandbox->exec({"cat"}, input);
  EXPECT_EQ(outcome.status, 0) << outcome.err;
  EXPECT_TRUE(outcome.out == input) << outcome.out.size() << " bytes came back of " << input.size();
}

TEST_F(Exec, UserFolderAndEnvironmentAreAsAsked) {
  EXPECT_EQ(sandbox->shell("id -un; id -u; pwd").out, "agent\n1000\n" + sandbox->workspace().string() + "\n");
  EXPECT_EQ(
      sbx({"exec", "-u", "root", "-w", "/etc", "-e", "A=b c", sandbox->name(), "sh", "-c", "id -u; pwd; echo $A"}).out,
      "0\n/etc\nb c\n");
  EXPECT_EQ(sandbox->shell("sudo id -u").out, "0\n");
  const auto ids = [](const std::string& user) {
    return sbx({"exec", "-u", user, "-w", "/", sandbox->name(), "sh", "-c", "id -u; id -g"}).out;
  };
  EXPECT_EQ(ids("root:docker"), "0\n" + sandbox->shell("getent group docker | cut -d: -f3").out);
  EXPECT_EQ(ids("1234:4321"), "1234\n4321\n");
  EXPECT_EQ(ids("nobody"), "65534\n65534\n");
  EXPECT_EQ(sandbox->shell("id -Gn | tr ' ' '\\n' | grep -cx -e sudo -e docker").out, "2\n");
}

TEST_F(Exec, EnvironmentFilesAreReadInOrderAndFlagsWin) {
  auto folder = TemporaryFolder::make("sbx-env").value();
  const auto first = folder.path() / "first";
  const auto second = folder.path() / "second";
  ASSERT_TRUE(write_file_atomically(first, "# a comment\nA=1\nB=with = and blanks \nC=1\n"));
  ASSERT_TRUE(write_file_atomically(second, "C=2\nD=2\n"));
  const auto outcome = sbx({"exec", "--env-file", first, "--env-file", second, "-e", "D=flag", sandbox->name(), "sh",
                            "-c", "printf '[%s]' \"$A\" \"$B\" \"$C\" \"$D\""});
  EXPECT_EQ(outcome.out, "[1][with = and blanks ][2][flag]") << outcome.err;
  EXPECT_EQ(sbx({"exec", "--env-file", "/nonexistent", sandbox->name(), "true"}).status, 125);
}

TEST_F(Exec, PrivilegedIsAllCapabilitiesForAnyUser) {
  const std::string script = "sed -n 's/^CapEff:[^0-9a-f]*//p' /proc/self/status";
  const auto all = sandbox->root(script).out;
  EXPECT_EQ(sandbox->shell(script).out, "0000000000000000\n");
  EXPECT_EQ(sbx({"exec", "--privileged", sandbox->name(), "bash", "-c", script}).out, all);
  EXPECT_EQ(sbx({"exec", "--privileged", sandbox->name(), "bash", "-c", "id -un"}).out, "agent\n");
}

TEST_F(Exec, WhatBashIsToRememberIsThereInTheNextOne) {
  ASSERT_EQ(sandbox->shell("echo 'export REMEMBERED=yes' >> /etc/sandbox-persistent.sh").status, 0);
  EXPECT_EQ(sandbox->shell("echo $REMEMBERED").out, "yes\n");
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

TEST_F(Exec, ABackgroundCommandRunsOnAndKeepsItsOutputAndStatus) {
  const std::string id = sandbox->background("echo begun; sleep 1; echo done >&2; exit 4");
  EXPECT_NE(sbx({"exec", "--list", sandbox->name()}).out.find(id), std::string::npos);
  const auto followed = sbx({"exec", "--logs", id, "--follow", sandbox->name()});
  EXPECT_EQ(followed.out, "begun\n");
  EXPECT_EQ(followed.err, "done\n");
  EXPECT_EQ(sbx({"exec", "--wait", id, sandbox->name()}).status, 4);
  EXPECT_EQ(sbx({"exec", "--logs", id, sandbox->name()}).out, "begun\n");
  const auto next = sandbox->background("true");
  const auto list = sbx_json({"exec", "--list", sandbox->name(), "--json"})["execs"];
  ASSERT_GE(list.size(), 2U);
  EXPECT_EQ(list.back()["id"], next) << "oldest first";
  const auto entry = list[list.size() - 2];
  EXPECT_EQ(entry["id"], id);
  EXPECT_EQ(entry["status"]["exit_code"], 4);
  EXPECT_EQ(entry["running"], false);
  EXPECT_EQ(sbx({"exec", "--wait", "no-such-id", sandbox->name()}).status, 125);
}

}  // namespace
}  // namespace sbx::test
