// The power goes at random moments: what was synced in a sandbox is there, and no disk meets an older memory.
//
// The instance is on an ext4 of its own that is shut down without its journal and mounted anew, so that all that the
// host had not yet been made to write is lost, as it would be. SBX_SEED=N repeats a run; SBX_FULL=1 runs more rounds.
#include <gtest/gtest.h>

#include <chrono>
#include <iostream>
#include <random>
#include <sstream>
#include <thread>

#include "instance.h"
#include "processes.h"
#include "volume.h"

namespace sbx::test {
namespace {

using std::chrono::milliseconds;

// Disk first, memory after it: so memory is never ahead, and behind only if an old one was brought back. The file is
// replaced by a rename, since one that is written in place may be found empty after a crash.
std::string write_generation(const std::string& n) {
  return "echo " + n + " > ~/next && sync ~/next && mv ~/next ~/generation && sync ~ && echo " + n +
         " > /dev/shm/generation && echo " + n;
}

class PowerCut : public ::testing::Test {
 protected:
  void SetUp() override {
    volume_ = Volume::ext4("2G");
    if (!volume_ && ::geteuid() != 0) GTEST_SKIP() << "needs root";
    ASSERT_TRUE(volume_) << "needs mkfs.ext4 and loop devices";
    const char* given = std::getenv("SBX_SEED");
    const auto value =
        given != nullptr ? static_cast<std::uint32_t>(std::strtoul(given, nullptr, 10)) : std::random_device{}();
    std::cout << "  SBX_SEED=" << value << std::endl;
    random_.seed(value);
    sandbox_ = std::make_unique<Sandbox>();
  }
  void TearDown() override {
    sandbox_.reset();
    volume_.reset();
  }

  void cut_after(int longest_ms, const std::string& what) {
    const auto delay = milliseconds(std::uniform_int_distribution<int>(0, longest_ms)(random_));
    std::cout << "  cut " << delay.count() << " ms into " << what << std::endl;
    std::this_thread::sleep_for(delay);  // the random moment
    volume_->cut_power();
  }

  void write_next() {
    ASSERT_EQ(sandbox_->shell(write_generation(std::to_string(++written_))).status, 0);
    acknowledged_ = written_;
  }

  // While a command writes one generation after the other.
  void cut_while_writing() {
    constexpr int kLast = 100'000;
    const int first = ++written_;
    Outcome outcome;
    std::thread client([&] {
      outcome = sandbox_->shell("for i in $(seq " + std::to_string(first) + " " + std::to_string(kLast) + "); do " +
                                write_generation("$i") + "; done");
    });
    cut_after(2500, "writes");
    client.join();
    std::istringstream lines(outcome.out.substr(0, outcome.out.rfind('\n') + 1));
    for (int n = 0; lines >> n;) acknowledged_ = n;
    written_ = kLast;  // any number of those after it may be there: its words were on their way
  }

  void cut_while_stopping() {
    write_next();
    std::thread client([&] { (void)sbx({"stop", sandbox_->name()}); });
    cut_after(2000, "stop");
    client.join();
  }

  // The disk moves on as soon as the machine runs again: a memory image that survived would be of an older one.
  void cut_while_starting() {
    write_next();
    ASSERT_EQ(sbx({"stop", sandbox_->name()}).status, 0);
    Outcome outcome;
    const int next = ++written_;
    std::thread client([&] { outcome = sandbox_->shell(write_generation(std::to_string(next))); });
    cut_after(1500, "start");
    client.join();
    if (outcome.out == std::to_string(next) + "\n") acknowledged_ = next;
  }

  void expect_what_was_promised() {
    ASSERT_TRUE(sandbox_->listed().is_object()) << "the sandbox is gone";
    const auto seen = sandbox_->shell("cat ~/generation; cat /dev/shm/generation 2>/dev/null || echo booted");
    ASSERT_EQ(seen.status, 0) << seen.err;
    std::istringstream words(seen.out);
    int disk = 0;
    std::string memory;
    words >> disk >> memory;
    EXPECT_GE(disk, acknowledged_) << "synced, acknowledged and lost";
    EXPECT_LE(disk, written_);
    EXPECT_TRUE(memory == "booted" || memory == std::to_string(disk)) << "disk " << disk << ", memory " << memory;
    written_ = acknowledged_ = disk;
    EXPECT_EQ(sandbox_->root("dmesg | grep -E 'EXT4-fs (error|warning)|I/O error' || true").out, "");
  }

  std::mt19937 random_;
  std::unique_ptr<Volume> volume_;
  std::unique_ptr<Sandbox> sandbox_;
  int written_ = 0;
  int acknowledged_ = 0;
};

TEST_F(PowerCut, WhatWasSyncedIsThereAndNoOldMemoryComesBack) {
  const int repeats = std::getenv("SBX_FULL") != nullptr ? 8 : 1;
  for (int i = 0; i < repeats && !HasFailure(); ++i) {
    write_next();
    cut_while_writing();
    expect_what_was_promised();
    cut_while_stopping();
    expect_what_was_promised();
    cut_while_starting();
    expect_what_was_promised();
  }
}

TEST_F(PowerCut, ASandboxThatWasJustMadeIsUsable) {
  volume_->cut_power();
  ASSERT_TRUE(sandbox_->listed().is_object()) << "create said that it is there";
  EXPECT_EQ(sandbox_->shell("echo usable").out, "usable\n");
}

}  // namespace
}  // namespace sbx::test
