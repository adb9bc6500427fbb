#include "keeper/port_servers.h"

#include <gtest/gtest.h>
#include <poll.h>

#include "base/file.h"

namespace sbx::keeper {
namespace {

namespace fs = std::filesystem;

bool has_ended(int pidfd, int milliseconds) {
  pollfd waiting{pidfd, POLLIN, 0};
  return ::poll(&waiting, 1, milliseconds) == 1;
}

// With programs in the place of sbx-files that need no guest.
class PortServersTest : public ::testing::Test {
 protected:
  PortServersTest() {
    spec_.runtime_folder = folder_.path();
    spec_.workspaces.push_back({0, "/work", false, false, "/nowhere"});
  }
  PortServers servers(PortServers::Start files) {
    return PortServers(spec_,
                       {.wanted = [this] { return wanted_; },
                        .changed = [this] { ++started_; },
                        .files_replaced = [this] { ++replaced_; }},
                       {.files = files});
  }

  TemporaryFolder folder_ = TemporaryFolder::make("sbx-servers").value();
  LaunchSpec spec_;
  bool wanted_ = true;
  int started_ = 0;
  int replaced_ = 0;
};

// It takes a while to end: its memory has to be given back first. It is in no jail, so nothing can be unmounted there.
Result<Subprocess> start_large(const LaunchSpec& spec, UniqueFd&) {
  return Command({"/usr/bin/python3", "-c",
                  "import os, sys, time\n"
                  "memory = bytearray(256 << 20)\n"
                  "for at in range(0, len(memory), 4096): memory[at] = 1\n"
                  "os.close(os.open(sys.argv[1], os.O_CREAT)); time.sleep(1000)",
                  spec.runtime_folder / ("ready" + std::to_string(spec.workspaces.size()))})
      .own_pid_namespace()
      .start();
}

TEST_F(PortServersTest, AServerThatHadToBeEndedForAnUnmountIsGoneWhenThatIsDone) {
  auto servers = this->servers(&start_large);
  ASSERT_TRUE(servers.start());
  ASSERT_EQ(servers.watched().size(), 1U);
  const int first = servers.watched().front();
  for (int i = 0; i < 1200 && !fs::exists(folder_.path() / "ready1"); ++i) ASSERT_FALSE(has_ended(first, 50));
  ASSERT_TRUE(write_file_atomically(folder_.path() / "mounts.json", R"({"workspaces":[]})"));
  const auto changed = servers.change_mounts();
  ASSERT_TRUE(changed) << changed.error().describe();
  ASSERT_TRUE(has_ended(first, 0)) << "it serves what was unmounted";
  servers.ended(first);
  EXPECT_EQ(replaced_, 1);
  EXPECT_TRUE(spec_.workspaces.empty()) << "what the next one is started with";
  EXPECT_EQ(servers.watched().size(), 1U);
  EXPECT_GT(servers.files_pid(), 0);
}

TEST_F(PortServersTest, OneThatEndsAgainAndAgainIsStartedAfterAPause) {
  auto servers = this->servers([](const LaunchSpec&, UniqueFd&) { return Command({"/bin/false"}).start(); });
  ASSERT_TRUE(servers.start());
  const auto end = [&] {
    ASSERT_EQ(servers.watched().size(), 1U);
    const int pidfd = servers.watched().front();
    ASSERT_TRUE(has_ended(pidfd, 60'000));
    servers.ended(pidfd);
  };
  for (int i = 0; i < 10; ++i) {
    ASSERT_NO_FATAL_FAILURE(end());
    EXPECT_FALSE(servers.next_due());
  }
  EXPECT_EQ(replaced_, 10);
  ASSERT_NO_FATAL_FAILURE(end());
  EXPECT_TRUE(servers.watched().empty());
  EXPECT_EQ(servers.files_pid(), 0);
  const auto due = servers.next_due();
  ASSERT_TRUE(due);
  EXPECT_GT(*due, PortServers::Clock::now());
  servers.start_due(*due - std::chrono::milliseconds(1));
  EXPECT_TRUE(servers.watched().empty());
  servers.start_due(*due);
  EXPECT_EQ(replaced_, 11);
  EXPECT_EQ(started_, 12);
  wanted_ = false;
  ASSERT_NO_FATAL_FAILURE(end());
  EXPECT_TRUE(servers.watched().empty());
  EXPECT_FALSE(servers.next_due()) << "the machine has ended, or is being stopped";
}

TEST_F(PortServersTest, AServerForTheFirstMountThatCannotBeStartedLeavesNothing) {
  spec_.workspaces.clear();
  auto servers = this->servers([](const LaunchSpec&, UniqueFd&) { return Command({"/no/such/program"}).start(); });
  ASSERT_TRUE(servers.start());
  ASSERT_TRUE(write_file_atomically(folder_.path() / "mounts.json",
                                    R"({"workspaces":[{"index":1,"path":"/x","source":"/nowhere"}]})"));
  EXPECT_FALSE(servers.change_mounts());
  EXPECT_TRUE(servers.watched().empty());
  EXPECT_FALSE(servers.take_files_control());
  ASSERT_TRUE(write_file_atomically(folder_.path() / "mounts.json", R"({"workspaces":[]})"));
  EXPECT_TRUE(servers.change_mounts());
  EXPECT_TRUE(spec_.workspaces.empty());
}

}  // namespace
}  // namespace sbx::keeper
