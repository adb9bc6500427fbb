#include "base/file.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

namespace sbx {
namespace {

TEST(File, AnAtomicWriteReplacesTheFileWholeAndLeavesNothingBeside) {
  auto folder = TemporaryFolder::make("sbx-file-test");
  ASSERT_TRUE(folder) << folder.error().describe();
  const auto path = folder->path() / "record.json";
  ASSERT_TRUE(write_file_atomically(path, "old"));
  ASSERT_TRUE(write_file_atomically(path, "new", 0640));
  EXPECT_EQ(read_file(path).value(), "new");
  struct stat info {};
  ASSERT_EQ(::stat(path.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777U, 0640U);
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder->path()), {}), 1);
}

TEST(File, AFileOverTheLimitIsRefused) {
  auto folder = TemporaryFolder::make("sbx-file-test");
  ASSERT_TRUE(write_file_atomically(folder->path() / "big", std::string(100, 'x')));
  EXPECT_EQ(read_file(folder->path() / "big", 99).error().code, ErrorCode::kInvalid);
  EXPECT_EQ(read_file(folder->path() / "none").error().code, ErrorCode::kNotFound);
}

TEST(File, ATemporaryFolderGoesWithItsOwner) {
  std::filesystem::path path;
  {
    auto folder = TemporaryFolder::make("sbx-file-test");
    path = folder->path();
    ASSERT_TRUE(make_folders(path / "a" / "b"));
    EXPECT_TRUE(std::filesystem::exists(path / "a" / "b"));
  }
  EXPECT_FALSE(std::filesystem::exists(path));
}

}  // namespace
}  // namespace sbx
