// `sbx exec` as part of a pipeline: back-pressure, half-closed stdin, a reader that stalls, memory that does not grow.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <thread>

#include "instance.h"
#include "processes.h"

namespace sbx::test {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

struct Pipe {
  UniqueFd read, write;
  Pipe() {
    int ends[2];
    EXPECT_EQ(::pipe2(ends, O_CLOEXEC), 0);
    read.reset(ends[0]);
    write.reset(ends[1]);
  }
};

// Everything up to the end of the stream; how many bytes, or -1 if a byte is not `expected`.
long long drain(int fd, char expected) {
  std::vector<char> buffer(1U << 20U);
  long long total = 0;
  for (ssize_t got = 0; (got = ::read(fd, buffer.data(), buffer.size())) > 0;) {
    if (std::any_of(buffer.begin(), buffer.begin() + got, [&](char c) { return c != expected; })) return -1;
    total += got;
  }
  return total;
}

std::string read_to_end(int fd) {
  std::string text;
  char piece[4096];
  for (ssize_t got = 0; (got = ::read(fd, piece, sizeof piece)) > 0;) text.append(piece, static_cast<std::size_t>(got));
  return text;
}

// The largest that the daemon, the sandbox's keeper and the client have ever been, in MiB.
struct Peaks {
  long daemon, keeper, guest;
};
Peaks peaks(const Sandbox& sandbox) {
  const auto keeper = sandbox.inspected().value("keeper_pid", -1);
  const auto guest = sandbox.root("sed -n 's/^VmHWM: *\\([0-9]*\\) kB/\\1/p' /proc/1/status");
  return {memory_kib(daemon_pid(), "VmHWM") >> 10, memory_kib(keeper, "VmHWM") >> 10,
          std::strtol(guest.out.c_str(), nullptr, 10) >> 10};
}
void expect_no_growth(const Peaks& before, const Peaks& after) {
  EXPECT_LT(after.daemon - before.daemon, 48) << "MiB more in sbxd";
  EXPECT_LT(after.keeper - before.keeper, 48) << "MiB more in sbx-keeper";
  EXPECT_LT(after.guest - before.guest, 48) << "MiB more in sbx-guest";
}

TEST(ExecStreams, AnyAmountPassesThroughBothWaysWithoutMemoryGrowing) {
  Sandbox sandbox;
  const long long size = (full() ? 1024LL : 128LL) << 20U;
  ASSERT_EQ(sandbox.exec({"true"}).status, 0);
  const auto before = peaks(sandbox);
  {
    Pipe out;
    auto client = Command(command_line({"exec", sandbox.name(), "head", "-c", std::to_string(size), "/dev/zero"}))
                      .stdout_to(out.write.get())
                      .start();
    ASSERT_TRUE(client);
    out.write.reset();
    EXPECT_EQ(drain(out.read.get(), '\0'), size);
    EXPECT_LT(memory_kib(client->pid(), "VmHWM") >> 10, 64);
    EXPECT_TRUE(client->wait().value().success());
  }
  expect_no_growth(before, peaks(sandbox));
  {
    Pipe in;
    Pipe out;
    auto client = Command(command_line({"exec", sandbox.name(), "wc", "-c"}))
                      .stdin_from(in.read.get())
                      .stdout_to(out.write.get())
                      .start();
    ASSERT_TRUE(client);
    in.read.reset();
    out.write.reset();
    const std::string piece(1U << 20U, 'x');
    for (long long sent = 0; sent < size; sent += 1LL << 20U) ASSERT_TRUE(write_all(in.write.get(), piece));
    in.write.reset();
    EXPECT_EQ(read_to_end(out.read.get()), std::to_string(size) + "\n");
    EXPECT_TRUE(client->wait().value().success());
  }
  expect_no_growth(before, peaks(sandbox));
}

TEST(ExecStreams, StdinEndsBeforeTheOutputDoesAndTheOtherWayRound) {
  Sandbox sandbox;
  EXPECT_EQ(sandbox.exec({"bash", "-c", "wc -c; sleep 1; echo after the end"}, "12345").out, "5\nafter the end\n");
  // More input than any window holds, for commands that do not want it.
  const std::string much(8U << 20U, 'x');
  EXPECT_EQ(sandbox.exec({"head", "-c", "3"}, much).out, "xxx");
  EXPECT_EQ(sandbox.exec({"bash", "-c", "exec <&-; sleep 0.5; echo closed"}, much).out, "closed\n");
  EXPECT_EQ(sandbox.exec({"sleep", "0.5"}, much).status, 0);
}

TEST(ExecStreams, AReaderThatStallsHoldsUpNobodyElse) {
  Sandbox sandbox;
  const auto round_trip = [&] {
    std::vector<milliseconds> times;
    for (int i = 0; i < 7; ++i) {
      const auto began = Clock::now();
      EXPECT_EQ(sandbox.exec({"echo", "quick"}).out, "quick\n");
      times.push_back(std::chrono::duration_cast<milliseconds>(Clock::now() - began));
    }
    std::ranges::sort(times);
    return times[times.size() / 2];
  };
  const auto alone = round_trip();
  const auto before = peaks(sandbox);
  Pipe out;
  Pipe in;
  auto stalled = Command(command_line({"exec", sandbox.name(), "cat", "/dev/zero"})).stdout_to(out.write.get()).start();
  // And one whose command does not read what it is sent.
  auto deaf = Command(command_line({"exec", sandbox.name(), "sleep", "1000"})).stdin_from(in.read.get()).start();
  ASSERT_TRUE(stalled);
  ASSERT_TRUE(deaf);
  ASSERT_EQ(::fcntl(in.write.get(), F_SETFL, O_NONBLOCK), 0);
  const std::string piece(65536, 'x');
  std::size_t sent = 0;
  for (pollfd room{in.write.get(), POLLOUT, 0}; ::poll(&room, 1, 3000) > 0;) {
    const ssize_t wrote = ::write(in.write.get(), piece.data(), piece.size());
    if (wrote > 0) sent += static_cast<std::size_t>(wrote);
    ASSERT_LT(sent, 64U << 20U) << "nothing holds the sender back";
  }
  const auto most = alone * 3 + milliseconds(200);
  auto beside = round_trip();
  for (int i = 0; i < 4 && beside >= most; ++i) beside = round_trip();  // the host may have been busy for a while
  EXPECT_LT(beside, most) << "alone it takes " << alone.count() << " ms";
  expect_no_growth(before, peaks(sandbox));
}

TEST(ExecStreams, AKilledClientTakesItsCommandAlongAndABackgroundCommandStays) {
  Sandbox sandbox;
  const std::string id = sandbox.background("exec sleep 55555");
  // Neither a deaf ear for SIGHUP nor a child in a session of its own is a way out, nor one that outlives the command.
  for (const char* script : {"trap '' HUP TERM INT; setsid sleep 44444 & sleep 44444",
                             "(trap '' HUP; exec setsid sleep 44444) & exec sleep 44444"}) {
    {
      auto client = Command(command_line({"exec", sandbox.name(), "bash", "-c", script})).start();
      ASSERT_TRUE(client);
      ASSERT_TRUE(eventually([&] { return sandbox.exec({"pgrep", "-c", "-f", "^sleep 44444"}).out == "2\n"; }));
    }  // SIGKILL
    EXPECT_TRUE(eventually([&] { return sandbox.exec({"pgrep", "-f", "^sleep 44444"}).status == 1; })) << script;
  }
  EXPECT_EQ(sandbox.exec({"pgrep", "-c", "-f", "^sleep 55555"}).out, "1\n");
}

TEST(ExecStreams, SignalsOfAClientReachItsCommand) {
  Sandbox sandbox;
  for (const int number : {SIGTERM, SIGINT, SIGHUP, SIGQUIT}) {
    Pipe out;
    const std::string name = number == SIGTERM ? "TERM" : number == SIGINT ? "INT" : number == SIGHUP ? "HUP" : "QUIT";
    // Not bash: it forgets a SIGINT at which its child just ends by itself.
    auto client = Command(command_line({"exec", sandbox.name(), "python3", "-c",
                                        "import os, signal\n"
                                        "wanted = {signal.SIG" +
                                            name +
                                            "}\n"
                                            "signal.pthread_sigmask(signal.SIG_BLOCK, wanted)\n"
                                            "os.write(1, b'ready\\n')\n"
                                            "signal.sigwait(wanted)\n"
                                            "os.write(1, b'got it\\n')\n"
                                            "os._exit(7)\n"}))
                      .stdout_to(out.write.get())
                      .start();
    ASSERT_TRUE(client);
    out.write.reset();
    std::string said;
    for (char byte = 0; !said.ends_with('\n') && ::read(out.read.get(), &byte, 1) == 1;) said += byte;
    ASSERT_EQ(said, "ready\n");
    client->kill(number);
    EXPECT_EQ(read_to_end(out.read.get()), "got it\n") << name;
    EXPECT_EQ(client->wait().value().code, 7) << name;
  }
}

TEST(ExecStreams, AClientThatOnlyWaitsIsLetGoWhenItIsKilled) {
  if (::geteuid() != 0) GTEST_SKIP() << "only root can count the daemon's descriptors";
  Sandbox sandbox;
  const std::string id = sandbox.background("exec sleep 1000");
  const auto connections = [] {
    const auto fds = std::filesystem::directory_iterator("/proc/" + std::to_string(daemon_pid()) + "/fd");
    return std::distance(begin(fds), end(fds));
  };
  // What is left of the commands before may still be closing.
  auto before = connections();
  ASSERT_TRUE(eventually([&] {
    before = connections();
    return stays([&] { return connections() == before; }, std::chrono::seconds(1));
  }));
  {
    auto waiting = Command(command_line({"exec", "--wait", id, sandbox.name()})).start();
    auto following = Command(command_line({"exec", "--logs", id, "--follow", sandbox.name()})).start();
    ASSERT_TRUE(waiting);
    ASSERT_TRUE(following);
    ASSERT_TRUE(eventually([&] { return connections() >= before + 2; }));
  }  // SIGKILL
  EXPECT_TRUE(eventually([&] { return connections() <= before; })) << connections() << " descriptors, was " << before;
  EXPECT_EQ(sandbox.exec({"pgrep", "-c", "-x", "sleep"}).out, "1\n") << "the command itself goes on";
}

}  // namespace
}  // namespace sbx::test
