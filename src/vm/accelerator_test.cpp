#include "vm/accelerator.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/file.h"

namespace sbx::vm {
namespace {

using ::testing::HasSubstr;

class AcceleratorTest : public ::testing::Test {
 protected:
  void SetUp() override {
    host_.modules = folder_.path();
    host_.device = folder_.path() / "kvm";
    host_.boot_id = folder_.path() / "boot_id";
    ASSERT_TRUE(write_file_atomically(host_.boot_id, "one\n"));
    ASSERT_TRUE(write_file_atomically(host_.device, ""));
    std::filesystem::create_directory(folder_.path() / "kvm_intel");
    host_.canary = [this]() -> Result<std::string> {
      ++runs_;
      return std::string("... VFS: Unable to mount root fs on unknown-block(0,0)");
    };
  }
  TemporaryFolder folder_ = TemporaryFolder::make("sbx-accelerator").value();
  AcceleratorHost host_;
  int runs_ = 0;
};

TEST_F(AcceleratorTest, KvmNeedsModuleDeviceAndAKernelThatComesUp) {
  EXPECT_EQ(probe_accelerator(host_, {}).accelerator, Accelerator::kKvm);
  host_.canary = []() -> Result<std::string> { return fail(ErrorCode::kTimeout, "nothing within 10 ms"); };
  auto verdict = probe_accelerator(host_, {});
  EXPECT_EQ(verdict.accelerator, Accelerator::kTcg);
  EXPECT_THAT(verdict.reason, HasSubstr("nothing within 10 ms"));
  host_.canary = []() -> Result<std::string> { return std::string("Decompressing Linux..."); };
  EXPECT_EQ(probe_accelerator(host_, {}).accelerator, Accelerator::kTcg);
}

TEST_F(AcceleratorTest, ADeviceWithoutAHardwareModuleIsNotEnough) {
  std::filesystem::remove(folder_.path() / "kvm_intel");
  std::filesystem::create_directory(folder_.path() / "kvm_pvm");
  const auto verdict = probe_accelerator(host_, {});
  EXPECT_EQ(verdict.accelerator, Accelerator::kTcg);
  EXPECT_THAT(verdict.reason, HasSubstr("kvm_intel"));
  EXPECT_EQ(runs_, 0);
}

TEST_F(AcceleratorTest, ACanaryThatCannotStartEndsInTime) {
  host_.canary = canary_with(folder_.path() / "no-such-kernel", std::chrono::seconds(5));
  const auto verdict = probe_accelerator(host_, {});
  EXPECT_EQ(verdict.accelerator, Accelerator::kTcg) << verdict.reason;
}

TEST_F(AcceleratorTest, AMissingDeviceMeansEmulation) {
  std::filesystem::remove(host_.device);
  EXPECT_EQ(probe_accelerator(host_, {}).accelerator, Accelerator::kTcg);
}

TEST_F(AcceleratorTest, TheVerdictHoldsForOneBootOfTheHost) {
  const auto cache = folder_.path() / "cache.json";
  EXPECT_FALSE(probe_accelerator(host_, cache).cached);
  const auto again = probe_accelerator(host_, cache);
  EXPECT_TRUE(again.cached);
  EXPECT_EQ(again.accelerator, Accelerator::kKvm);
  EXPECT_EQ(runs_, 1);
  ASSERT_TRUE(write_file_atomically(host_.boot_id, "two\n"));
  EXPECT_FALSE(probe_accelerator(host_, cache).cached);
  EXPECT_EQ(runs_, 2);
  ASSERT_TRUE(write_file_atomically(cache, "[damaged"));
  EXPECT_FALSE(probe_accelerator(host_, cache).cached);
}

}  // namespace
}  // namespace sbx::vm
