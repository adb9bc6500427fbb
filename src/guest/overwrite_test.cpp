#include "guest/overwrite.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include "base/file.h"

namespace sbx::guest {
namespace {

TEST(Overwrite, LeavesNothingOfWhatWasThereAndKeepsTheFile) {
  const auto folder = TemporaryFolder::make("sbx-overwrite").value();
  const auto path = folder.path() / "file";
  struct stat first {};
  for (const std::string text : {"some", "something longer", "less", "", "more"}) {
    ASSERT_TRUE(overwrite(path, text));
    EXPECT_EQ(read_file(path).value(), text);
    struct stat now {};
    ASSERT_EQ(::stat(path.c_str(), &now), 0);
    if (first.st_ino == 0) first = now;
    EXPECT_EQ(now.st_ino, first.st_ino);
  }
}

}  // namespace
}  // namespace sbx::guest
