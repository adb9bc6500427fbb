// An idle sandbox costs no CPU: its machine stands still until somebody needs it, and nobody notices.
#include <gtest/gtest.h>

#include <chrono>
#include <ctime>

#include "instance.h"
#include "processes.h"

namespace sbx::test {
namespace {

bool parked(const Sandbox& sandbox) { return sandbox.inspected().value("parked", false); }

// Longer than an idle sandbox takes to be parked, twice over.
bool stays_awake(const Sandbox& sandbox) {
  return stays([&] { return !parked(sandbox); }, std::chrono::seconds(5));
}

TEST(Parking, AnIdleSandboxStandsStillAndAnExecWakesItWithARightClock) {
  Sandbox sandbox;
  ASSERT_TRUE(eventually([&] { return parked(sandbox); }));
  EXPECT_EQ(sandbox.listed()["status"], "running");
  const int pid = sandbox.inspected()["qemu_pid"];
  long used = 0;
  for (int i = 0; i < 3; ++i) {  // it may still be about what it did before
    const long before = cpu_ticks(pid);
    EXPECT_TRUE(stays([] { return true; }, std::chrono::seconds(4)));
    used = cpu_ticks(pid) - before;
    if (used <= 1) break;
  }
  EXPECT_LE(used, 1) << "a parked machine uses CPU time";
  EXPECT_TRUE(parked(sandbox)) << "inspect must not wake it";

  const auto host = std::time(nullptr);
  const auto outcome = sandbox.shell("date +%s");
  ASSERT_EQ(outcome.status, 0) << outcome.err;
  EXPECT_GE(std::stoll(outcome.out), host) << "the clock has not moved on while the machine stood still";
  EXPECT_LE(std::stoll(outcome.out), std::time(nullptr) + 1);
  // Timers go on: a sleep that starts now takes as long as it should.
  const auto began = std::chrono::steady_clock::now();
  EXPECT_EQ(sandbox.shell("sleep 1").status, 0);
  EXPECT_GE(std::chrono::steady_clock::now() - began, std::chrono::milliseconds(900));
  EXPECT_TRUE(eventually([&] { return parked(sandbox); })) << "it is not parked a second time";
}

TEST(Parking, ABackgroundCommandKeepsTheMachineRunning) {
  Sandbox sandbox;
  const auto started =
      sbx({"exec", "-d", sandbox.name(), "sh", "-c", "until [ -e stop ]; do sleep 0.2; done; date +%s"});
  ASSERT_EQ(started.status, 0) << started.err;
  EXPECT_TRUE(stays_awake(sandbox));
  ASSERT_TRUE(write_file_atomically(sandbox.workspace() / "stop", "", 0644));
  const std::string id = started.out.substr(0, started.out.find('\n'));
  EXPECT_EQ(sbx({"exec", "--wait", id, sandbox.name()}).status, 0);
  EXPECT_TRUE(eventually([&] { return parked(sandbox); }));
  // What the keeper holds does not need the guest.
  EXPECT_EQ(sbx({"exec", "--logs", id, sandbox.name()}).status, 0);
  EXPECT_TRUE(parked(sandbox));
}

TEST(Parking, WhatACommandLeftBehindKeepsTheMachineRunning) {
  Sandbox sandbox;
  ASSERT_EQ(sandbox.shell("setsid sleep 4321 >/dev/null 2>&1 </dev/null & disown").status, 0);
  EXPECT_TRUE(stays_awake(sandbox));
  ASSERT_EQ(sandbox.shell("pkill -x sleep").status, 0);
  EXPECT_TRUE(eventually([&] { return parked(sandbox); }));
}

TEST(Parking, AContainerKeepsTheMachineRunning) {
  Sandbox sandbox;
  ASSERT_TRUE(write_file_atomically(sandbox.workspace() / "Dockerfile", "FROM scratch\nCOPY busybox /busybox\n", 0644));
  const auto run = sandbox.shell(
      "cp /bin/busybox . && docker build -q -t box . && docker run -d --name it --network none box /busybox sleep "
      "4321");
  ASSERT_EQ(run.status, 0) << run.err;
  EXPECT_TRUE(stays_awake(sandbox));
  const auto removed = sandbox.shell("docker rm -f it");
  ASSERT_EQ(removed.status, 0) << removed.err;
  EXPECT_TRUE(eventually([&] { return parked(sandbox); }));
  // dockerd is still there after it.
  EXPECT_EQ(sandbox.shell("docker ps -q").status, 0);
}

TEST(Parking, AParkedSandboxStopsAndStartsAsAnyOther) {
  Sandbox sandbox;
  ASSERT_EQ(sandbox.shell("echo kept > ~/file").status, 0);
  ASSERT_TRUE(eventually([&] { return parked(sandbox); }));
  const auto stopped = sbx({"stop", sandbox.name()});
  ASSERT_EQ(stopped.status, 0) << stopped.err;
  EXPECT_EQ(sandbox.shell("cat ~/file").out, "kept\n");
}

}  // namespace
}  // namespace sbx::test
