// create, ls, stop, start, rm; what survives which death.
#include <gtest/gtest.h>
#include <signal.h>

#include <thread>

#include "instance.h"

namespace sbx::test {
namespace {

namespace fs = std::filesystem;

TEST(Lifecycle, ASandboxIsListedAndGoesWithoutTrace) {
  std::string id;
  {
    Sandbox sandbox;
    const auto entry = sandbox.listed();
    ASSERT_TRUE(entry.is_object());
    EXPECT_EQ(entry["status"], "running");
    EXPECT_EQ(entry["workspaces"][0], sandbox.workspace().string());
    id = entry["id"];
    EXPECT_EQ(sandbox.shell("uname -s; hostname").out, "Linux\n" + sandbox.name() + "\n");
  }
  EXPECT_FALSE(fs::exists(home() / "sandboxes" / id));
  EXPECT_FALSE(fs::exists(home() / "run" / id.substr(0, 8)));
}

TEST(Lifecycle, StopKeepsFilesEndsProcessesAndStartIsQuick) {
  Sandbox sandbox;
  ASSERT_EQ(sandbox.shell("echo kept > ~/file; (sleep 4321 &) ; sudo touch /etc/mark").status, 0);
  const auto stopped = sbx({"stop", sandbox.name()});
  ASSERT_EQ(stopped.status, 0) << stopped.err;
  EXPECT_EQ(sandbox.listed()["status"], "stopped");
  const auto image = home() / "sandboxes" / sandbox.listed()["id"].get<std::string>() / "memory.img";
  EXPECT_TRUE(fs::exists(image)) << "stop kept no memory, so the start will be a cold boot";
  const auto outcome = sandbox.shell("cat ~/file; test -e /etc/mark && echo mark; pgrep -x sleep || echo none");
  EXPECT_EQ(outcome.out, "kept\nmark\nnone\n") << outcome.err;
  EXPECT_FALSE(fs::exists(image)) << "a disk that has moved on must never meet this memory";
  EXPECT_EQ(sandbox.listed()["status"], "running");
  EXPECT_EQ(sandbox.shell("echo in > from-second-run; pwd").out, sandbox.workspace().string() + "\n");
  EXPECT_TRUE(fs::exists(sandbox.workspace() / "from-second-run"));
}

TEST(Lifecycle, ClonesDoNotShareRandomnessIdentityOrClock) {
  Sandbox first;
  Sandbox second;
  const std::string script = "head -c16 /dev/urandom | od -An -tx1; cat /etc/machine-id";
  EXPECT_NE(first.shell(script).out, second.shell(script).out);
  const auto now = std::stoll(first.shell("date +%s").out);
  EXPECT_LE(std::llabs(now - std::time(nullptr)), 5);
}

TEST(Lifecycle, OfRacingCreatesOfOneNameExactlyOneWins) {
  auto folder = TemporaryFolder::make("sbx-race").value();
  std::vector<std::thread> threads;
  std::atomic<int> won = 0;
  std::atomic<int> conflicts = 0;
  for (int i = 0; i < 10; ++i) {
    threads.emplace_back([&] {
      const auto outcome = sbx({"create", "--name", "race-test", "shell", folder.path().string()});
      if (outcome.status == 0) ++won;
      if (outcome.err.find("already exists") != std::string::npos) ++conflicts;
    });
  }
  for (auto& thread : threads) thread.join();
  (void)sbx({"rm", "--force", "race-test"});
  EXPECT_EQ(won, 1);
  EXPECT_EQ(conflicts, 9);
}

TEST(Lifecycle, AKilledDaemonCostsNothing) {
  Sandbox sandbox;
  const auto started = sbx({"exec", "-d", sandbox.name(), "sh", "-c", "sleep 3; echo survived"});
  ASSERT_EQ(started.status, 0) << started.err;
  const std::string id = started.out.substr(0, started.out.find('\n'));
  const auto status = sbx({"daemon", "status"});
  const auto pid_text = read_file(home() / "sbxd.pid");
  ASSERT_TRUE(pid_text) << "sbxd leaves its pid in sbxd.pid; " << status.out;
  ASSERT_EQ(::kill(std::stoi(*pid_text), SIGKILL), 0);
  EXPECT_EQ(sbx({"exec", "--wait", id, sandbox.name()}).status, 0);
  EXPECT_EQ(sbx({"exec", "--logs", id, sandbox.name()}).out, "survived\n");
  EXPECT_EQ(sandbox.listed()["status"], "running");
}

TEST(Lifecycle, AKilledVmIsStoppedWithAReasonAndStartsAgainFromItsDisk) {
  Sandbox sandbox;
  ASSERT_EQ(sandbox.shell("echo synced > ~/file; sync").status, 0);
  const auto pid = sandbox.inspected()["qemu_pid"];
  ASSERT_TRUE(pid.is_number()) << sandbox.inspected().dump();
  ASSERT_EQ(::kill(pid.get<int>(), SIGKILL), 0);
  EXPECT_TRUE(eventually([&] { return sandbox.listed()["status"] == "stopped"; }));
  EXPECT_NE(sandbox.inspected().dump().find("qemu"), std::string::npos);
  EXPECT_EQ(sandbox.shell("cat ~/file").out, "synced\n");
}

TEST(Template, LeavesNoMemoryBehindWhereItWasBuilt) {
  for (const auto& entry : std::filesystem::directory_iterator("/dev/shm")) {
    EXPECT_FALSE(entry.path().filename().native().starts_with("sbx-template-")) << entry.path();
  }
}

}  // namespace
}  // namespace sbx::test
