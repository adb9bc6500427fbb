// The host's file system is full: a clear error, nothing lost, and all is well when there is room again.
#include <gtest/gtest.h>

#include <thread>

#include "instance.h"
#include "processes.h"
#include "volume.h"

namespace sbx::test {
namespace {

class DiskFull : public ::testing::Test {
 protected:
  void SetUp() override {
    volume_ = Volume::tmpfs("96m");
    if (!volume_) GTEST_SKIP() << "needs root and mount(2)";
  }
  std::unique_ptr<Volume> volume_;
};

TEST_F(DiskFull, ACreateSaysSoLeavesNothingAndWorksAfterwards) {
  const auto workspace = TemporaryFolder::make("sbx-full").value();
  ASSERT_EQ(sbx({"ls"}).status, 0);  // the daemon is up
  volume_->fill();
  const auto refused = sbx({"create", "--name", "full", "shell", workspace.path().string()});
  EXPECT_NE(refused.status, 0);
  EXPECT_TRUE(refused.err.find("No space left") != std::string::npos || refused.err.find("full") != std::string::npos)
      << refused.err;
  EXPECT_NE(refused.err.find("make room"), std::string::npos) << refused.err;
  volume_->make_room();
  const auto made = sbx({"create", "--name", "full", "shell", workspace.path().string()});
  EXPECT_EQ(made.status, 0) << made.err;
  EXPECT_EQ(sbx({"exec", "full", "echo", "usable"}).out, "usable\n");
  EXPECT_EQ(sbx({"rm", "--force", "full"}).status, 0);
  EXPECT_TRUE(std::filesystem::is_empty(home() / "sandboxes"));
}

TEST_F(DiskFull, AGuestThatWritesMoreThanFitsWaitsAndGoesOn) {
  Sandbox sandbox;
  ASSERT_EQ(sandbox.shell("echo before > ~/before; sync").status, 0);
  volume_->fill(8U << 20U);
  Outcome written;
  std::thread writer([&] {
    written = sandbox.shell("head -c 24000000 /dev/urandom > ~/blob && sync && sha256sum ~/blob > ~/sum && sync");
  });
  Outcome refused;
  EXPECT_TRUE(eventually(
      [&] {
        refused = sbx({"exec", "-d", sandbox.name(), "true"});
        return refused.status != 0;
      },
      60))
      << "no command was refused";
  EXPECT_NE(refused.err.find("no space left"), std::string::npos) << refused.err;
  EXPECT_NE(refused.err.find("make room"), std::string::npos) << refused.err;
  volume_->make_room();
  writer.join();
  EXPECT_EQ(written.status, 0) << written.err;
  EXPECT_TRUE(eventually([&] { return sandbox.shell("sha256sum -c ~/sum && cat ~/before").status == 0; }, 60));
  EXPECT_EQ(sandbox.root("dmesg | grep -E 'EXT4-fs (error|warning)|I/O error' || true").out, "");
}

TEST_F(DiskFull, AStopThatCannotKeepTheMemoryKeepsTheDisk) {
  Sandbox sandbox;
  ASSERT_EQ(sandbox.shell("head -c 40000000 /dev/urandom > /dev/shm/blob; echo kept > ~/file; sync").status, 0);
  volume_->fill(4U << 20U);
  const auto stopped = sbx({"stop", sandbox.name()});
  EXPECT_EQ(stopped.status, 0) << stopped.err;
  const auto folder = home() / "sandboxes" / sandbox.listed()["id"].get<std::string>();
  EXPECT_FALSE(std::filesystem::exists(folder / "memory.img"));
  EXPECT_FALSE(std::filesystem::exists(folder / "memory.tmp")) << "half an image takes the room that is wanted";
  volume_->make_room();
  EXPECT_EQ(sandbox.shell("cat ~/file").out, "kept\n");
}

}  // namespace
}  // namespace sbx::test
