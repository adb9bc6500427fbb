#include "image/initramfs.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/command.h"
#include "base/file.h"
#include "image/manifest.h"

namespace sbx::image {
namespace {

class InitramfsTest : public testing::Test {
 protected:
  void SetUp() override {
    const ImageManifest manifest{.id = "0123456789abcdef",
                                 .suite = "trixie",
                                 .kernel_version = "6.12",
                                 .modules = {"first.ko", "second.ko"},
                                 .disk_bytes = 0,
                                 .stored_bytes = 0,
                                 .build_ms = 0,
                                 .created_at = ""};
    ASSERT_TRUE(make_folders(image_ / "modules"));
    ASSERT_TRUE(write_file_atomically(image_ / "manifest.json", to_json(manifest)));
    ASSERT_TRUE(write_file_atomically(image_ / "modules/first.ko", "one"));
    ASSERT_TRUE(write_file_atomically(image_ / "modules/second.ko", "two"));
    ASSERT_TRUE(write_file_atomically(guest_, std::string(100'000, 'g')));
  }
  TemporaryFolder folder_ = TemporaryFolder::make("initramfs").value();
  std::filesystem::path image_ = folder_.path() / "image";
  std::filesystem::path guest_ = folder_.path() / "sbx-guest";
  std::filesystem::path out_ = folder_.path() / "initramfs.gz";
};

// Another implementation (cpio and gzip) reads it.
TEST_F(InitramfsTest, HoldsTheGuestAsInitAndTheModulesInOrder) {
  const auto written = write_initramfs(guest_, image_, out_);
  ASSERT_TRUE(written) << written.error().describe();
  const auto listing = Command({"sh", "-c", "gzip -dc \"$0\" | cpio -tv --quiet", out_.string()}).output();
  ASSERT_TRUE(listing) << listing.error().describe();
  EXPECT_THAT(*listing, testing::ContainsRegex("-rwxr-xr-x.* 100000 .* init\n"));
  EXPECT_THAT(*listing, testing::ContainsRegex("crw-------.* 5, *1 .* dev/console\n"));
  const auto extract = [&](const std::string& name) {
    return Command({"sh", "-c", "gzip -dc \"$0\" | cpio -i --quiet --to-stdout \"$1\"", out_.string(), name})
        .output()
        .value();
  };
  EXPECT_EQ(extract("modules.list"), "first.ko\nsecond.ko\n");
  EXPECT_EQ(extract("modules/second.ko"), "two");
  EXPECT_EQ(extract("init"), std::string(100'000, 'g'));
}

TEST_F(InitramfsTest, TheSameInputGivesTheSameBytes) {
  ASSERT_TRUE(write_initramfs(guest_, image_, out_));
  const auto first = read_file(out_).value();
  ASSERT_TRUE(write_initramfs(guest_, image_, out_));
  EXPECT_EQ(read_file(out_).value(), first);
}

TEST_F(InitramfsTest, AMissingGuestOrModuleIsNotFoundAndLeavesNothing) {
  EXPECT_EQ(write_initramfs(folder_.path() / "absent", image_, out_).error().code, ErrorCode::kNotFound);
  std::filesystem::remove(image_ / "modules/second.ko");
  EXPECT_EQ(write_initramfs(guest_, image_, out_).error().code, ErrorCode::kNotFound);
  EXPECT_FALSE(std::filesystem::exists(out_));
}

}  // namespace
}  // namespace sbx::image
