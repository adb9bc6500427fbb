#include "guest/cgroups.h"

#include <gtest/gtest.h>

#include "base/file.h"

namespace sbx::guest {
namespace {

namespace fs = std::filesystem;

// A folder stands in for cgroupfs: which groups are made and used is all that is asked here.
class CgroupsTest : public ::testing::Test {
 protected:
  CgroupsTest() { fs::create_directory(folder_.path() / "user"); }
  TemporaryFolder folder_ = TemporaryFolder::make("sbx-cgroups").value();
  Cgroups cgroups_{folder_.path()};
};

TEST_F(CgroupsTest, ACommandTakesTheSpareGroupAndTheNextOneDoesNot) {
  cgroups_.keep_spare();
  cgroups_.keep_spare();
  EXPECT_TRUE(fs::is_directory(folder_.path() / "user/1"));
  EXPECT_FALSE(fs::exists(folder_.path() / "user/2"));
  EXPECT_EQ(cgroups_.take().value().name, "user/1");
  EXPECT_EQ(cgroups_.take().value().name, "user/2");
}

TEST_F(CgroupsTest, ASpareGroupThatHasGoneOrIsInUseIsNotTaken) {
  cgroups_.keep_spare();
  fs::remove(folder_.path() / "user/1");
  EXPECT_EQ(cgroups_.take().value().name, "user/2");
  cgroups_.keep_spare();
  ASSERT_TRUE(write_file_atomically(folder_.path() / "user/3/cgroup.events", "populated 1\nfrozen 0\n"));
  EXPECT_EQ(cgroups_.take().value().name, "user/4");
}

TEST_F(CgroupsTest, AGroupThatSomebodyElseHasMadeIsPassedOver) {
  fs::create_directory(folder_.path() / "user/1");
  EXPECT_EQ(cgroups_.take().value().name, "user/2");
}

}  // namespace
}  // namespace sbx::guest
