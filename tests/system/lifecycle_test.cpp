// create, ls, stop, start, rm; what survives which death.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fstream>
#include <thread>

#include "instance.h"

namespace sbx::test {
namespace {

namespace fs = std::filesystem;
using namespace std::chrono_literals;

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

TEST(Lifecycle, IdleSandboxesStopByThemselvesAndBusyOnesDoNot) {
  Sandbox quick({"--auto-stop", "3s"});
  Sandbox never({"--auto-stop", "off"});
  const auto id = quick.background("until [ -e stop ]; do sleep 0.2; done");
  EXPECT_TRUE(stays([&] { return quick.status() == "running"; }, 10s)) << "a background command keeps it";
  ASSERT_TRUE(write_file_atomically(quick.workspace() / "stop", "", 0644));
  EXPECT_EQ(sbx({"exec", "--wait", id, quick.name()}).status, 0);
  EXPECT_TRUE(eventually([&] { return quick.status() == "stopped"; }));
  EXPECT_EQ(never.status(), "running");
  EXPECT_EQ(never.inspected()["auto_stop_s"], 0);
  // What needs it starts it: cp, run, and (elsewhere) exec.
  const auto runs = [&] {
    const auto began = std::chrono::steady_clock::now();
    return quick.status() == "running" || std::chrono::steady_clock::now() - began > 2s;
  };
  EXPECT_EQ(sbx({"cp", "/etc/hostname", quick.name() + ":/tmp/copied"}).status, 0);
  EXPECT_TRUE(runs());
  EXPECT_TRUE(eventually([&] { return quick.status() == "stopped"; }));
  EXPECT_EQ(sbx({"run", "-d", "--name", quick.name()}).status, 0);
  EXPECT_TRUE(runs());
}

// Lines of /proc that tell of a sandbox: processes, mounts, sockets.
std::string traces_of(const std::string& id) {
  const std::string part = id.substr(0, 8);
  std::string traces;
  for (const auto& process : fs::directory_iterator("/proc")) {
    const auto command = read_file(process.path() / "cmdline", 1U << 20U);
    if (command && command->find(part) != std::string::npos) traces += process.path().string() + " " + *command + "\n";
  }
  for (const char* table : {"/proc/mounts", "/proc/net/unix"}) {
    std::ifstream lines(table);
    for (std::string line; std::getline(lines, line);) {
      if (line.find(part) != std::string::npos) traces += line + "\n";
    }
  }
  std::error_code error;  // what goes meanwhile
  for (fs::recursive_directory_iterator entry(home(), error), end; entry != end; entry.increment(error)) {
    if (entry->path().string().find(part) != std::string::npos) traces += entry->path().string() + "\n";
  }
  return traces;
}

TEST(Lifecycle, RemovalLeavesNothingAndAsksForForceWhereSomebodyIsAtWork) {
  Sandbox sandbox;
  const std::string id = sandbox.listed()["id"];
  EXPECT_NE(traces_of(id), "");
  auto session = Command(command_line({"exec", sandbox.name(), "sleep", "1000"})).start();
  ASSERT_TRUE(session);
  ASSERT_TRUE(eventually([&] { return sandbox.inspected().value("sessions", 0) > 0; }));
  const auto refused = sbx({"rm", sandbox.name()});
  EXPECT_EQ(refused.status, 1);  // no terminal to ask on
  const auto asked =
      run(Command({"/usr/bin/curl", "-s", "--unix-socket", sbx_json({"daemon", "status", "--json"})["socket"], "-X",
                   "DELETE", "http://sbx/v1/sandboxes/" + sandbox.name()}));
  EXPECT_NE(asked.out.find("active session"), std::string::npos) << asked.out;
  EXPECT_EQ(sandbox.status(), "running");
  EXPECT_EQ(sbx({"rm", "-f", sandbox.name()}).status, 0);
  EXPECT_NE(session->wait().value().code, 0) << "its client is told";
  EXPECT_TRUE(eventually([&] { return traces_of(id).empty(); })) << traces_of(id);
}

TEST(Lifecycle, MemoryThatCannotBeUsedAndAColdStartBothBootFromTheCleanDisk) {
  Sandbox sandbox({"--auto-stop", "off"});
  const std::string script = "cat ~/file /proc/sys/kernel/random/boot_id";
  const auto first = sandbox.shell("echo kept > ~/file; " + script).out;
  const auto image = home() / "sandboxes" / sandbox.listed()["id"].get<std::string>() / "memory.img";
  ASSERT_EQ(sbx({"stop", sandbox.name()}).status, 0);
  EXPECT_EQ(sandbox.shell(script).out, first) << "the same boot goes on";

  ASSERT_EQ(sbx({"stop", sandbox.name()}).status, 0);
  ASSERT_TRUE(fs::exists(image));
  fs::resize_file(image, fs::file_size(image) / 2);
  const auto second = sandbox.shell(script);
  EXPECT_TRUE(second.out.starts_with("kept\n")) << second.err;
  EXPECT_NE(second.out, first) << "a new boot";
  EXPECT_FALSE(fs::exists(image));
  EXPECT_EQ(sbx({"run", "-d", "--cold", "--name", sandbox.name()}).status, 1) << "it runs";

  ASSERT_EQ(sbx({"stop", sandbox.name()}).status, 0);
  EXPECT_TRUE(fs::exists(image)) << "stop keeps memory after a cold boot too";
  const auto cold = sbx({"run", "-d", "--cold", "--name", sandbox.name()});
  EXPECT_EQ(cold.status, 0) << cold.err;
  EXPECT_FALSE(fs::exists(image));
  const auto third = sandbox.shell(script);
  EXPECT_TRUE(third.out.starts_with("kept\n")) << third.err;
  EXPECT_NE(third.out, second.out) << "a new boot again";
  EXPECT_EQ(sandbox.root("dmesg | grep -c -e 'EXT4-fs error' -e corrupt").out, "0\n");
}

TEST(Lifecycle, ClonesDoNotShareRandomnessIdentityOrClock) {
  Sandbox first;
  Sandbox second;
  const std::string script = "head -c16 /dev/urandom | od -An -tx1; cat /etc/machine-id";
  EXPECT_NE(first.shell(script).out, second.shell(script).out);
  const auto before = std::time(nullptr);
  const auto now = std::stoll(first.shell("date +%s").out);
  EXPECT_GE(now, before - 3);
  EXPECT_LE(now, std::time(nullptr) + 3);
}

// The owner of a sandbox's QEMU, -1 if it does not run.
long uid_of_qemu(const Sandbox& sandbox) { return memory_kib(sandbox.inspected().value("qemu_pid", 0), "Uid"); }

TEST(Lifecycle, AsRootEverySandboxHasUidsOfItsOwnAndKeepsThem) {
  if (::geteuid() != 0) GTEST_SKIP() << "needs root";
  Sandbox first;
  const Sandbox second;
  const long uid = uid_of_qemu(first);
  EXPECT_GE(uid, 200'000);
  EXPECT_GE(uid_of_qemu(second), 200'000);
  EXPECT_NE(uid, uid_of_qemu(second));
  ASSERT_EQ(sbx({"stop", first.name()}).status, 0);
  ASSERT_EQ(first.exec({"true"}).status, 0);
  EXPECT_EQ(uid_of_qemu(first), uid);
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
    struct stat status {};
    if (::stat(entry.path().c_str(), &status) != 0 || status.st_uid < 200'000) continue;  // QEMU's uids begin there
    EXPECT_FALSE(entry.path().filename().native().starts_with("sbx-template-")) << entry.path();
  }
}

}  // namespace
}  // namespace sbx::test
