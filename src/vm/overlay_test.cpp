#include "vm/overlay.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include "base/command.h"
#include "base/file.h"

namespace sbx::vm {
namespace {

class OverlayTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const auto base = open_file(folder_.path() / "base", O_RDWR | O_CREAT);
    ASSERT_TRUE(base);
    ASSERT_TRUE(write_all(base->get(), std::string(1 << 20, 'b')));
  }
  void expect_sound(const std::filesystem::path& path) {
    if (::access("/usr/bin/qemu-img", X_OK) != 0) GTEST_SKIP() << "needs qemu-img";
    const auto check = Command({"/usr/bin/qemu-img", "check", path.string()}).output();
    EXPECT_TRUE(check) << check.error().describe();
  }
  TemporaryFolder folder_ = TemporaryFolder::make("sbx-overlay").value();
};

TEST_F(OverlayTest, IsSoundForQemuImgWithAndWithoutABackingFile) {
  ASSERT_TRUE(create_overlay(folder_.path() / "a", {1 << 20, (folder_.path() / "base").string(), DiskFormat::kRaw}));
  ASSERT_TRUE(create_overlay(folder_.path() / "b", {1 << 20, (folder_.path() / "a").string(), DiskFormat::kQcow2}));
  ASSERT_TRUE(create_overlay(folder_.path() / "c", {20ULL << 30, "", DiskFormat::kRaw}));
  for (const char* name : {"a", "b", "c"}) expect_sound(folder_.path() / name);
}

TEST_F(OverlayTest, ShowsWhatItIsBackedBy) {
  if (::access("/usr/bin/qemu-img", X_OK) != 0) GTEST_SKIP() << "needs qemu-img";
  ASSERT_TRUE(create_overlay(folder_.path() / "a", {1 << 20, (folder_.path() / "base").string(), DiskFormat::kRaw}));
  ASSERT_TRUE(create_overlay(folder_.path() / "b", {1 << 20, (folder_.path() / "a").string(), DiskFormat::kQcow2}));
  const auto flat = folder_.path() / "flat";
  const auto converted =
      Command({"/usr/bin/qemu-img", "convert", "-O", "raw", (folder_.path() / "b").string(), flat.string()}).output();
  ASSERT_TRUE(converted) << converted.error().describe();
  EXPECT_EQ(read_file(flat).value(), read_file(folder_.path() / "base").value());
}

TEST_F(OverlayTest, GrowsButDoesNotShrink) {
  const auto path = folder_.path() / "a";
  ASSERT_TRUE(create_overlay(path, {1 << 20, "", DiskFormat::kRaw}));
  EXPECT_EQ(virtual_disk_size(path, DiskFormat::kQcow2).value(), 1U << 20U);
  ASSERT_TRUE(grow_overlay(path, 2ULL << 40U));
  EXPECT_EQ(virtual_disk_size(path, DiskFormat::kQcow2).value(), 2ULL << 40U);
  expect_sound(path);
  EXPECT_FALSE(grow_overlay(path, 1 << 20));
  EXPECT_FALSE(grow_overlay(path, 5ULL << 40U));
  EXPECT_FALSE(grow_overlay(folder_.path() / "base", 2 << 20)) << "not a qcow2 image";
}

TEST_F(OverlayTest, RefusesBadSizesAndExistingFiles) {
  EXPECT_FALSE(create_overlay(folder_.path() / "x", {0, "", DiskFormat::kRaw}));
  EXPECT_FALSE(create_overlay(folder_.path() / "x", {1000, "", DiskFormat::kRaw}));
  const auto again = create_overlay(folder_.path() / "base", {1 << 20, "", DiskFormat::kRaw});
  ASSERT_FALSE(again);
  EXPECT_EQ(again.error().code, ErrorCode::kConflict);
}

}  // namespace
}  // namespace sbx::vm
