#include "archive/unpack.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "archive/tar_test_support.h"
#include "base/file.h"

namespace sbx::archive {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

class Unpack : public ::testing::Test {
 protected:
  Unpack() : folder_(TemporaryFolder::make("sbx-unpack").value()) {
    fs::create_directory(target());
    EXPECT_TRUE(write_file_atomically(folder_.path() / "outside", "mine"));
  }

  fs::path target() const { return folder_.path() / "target"; }
  Result<std::size_t> unpack_bytes(const std::string& bytes, const std::string& name = "tree") {
    const UniqueFd input(::memfd_create("tar", MFD_CLOEXEC));
    EXPECT_TRUE(write_all(input.get(), bytes));
    ::lseek(input.get(), 0, SEEK_SET);
    const auto target_fd = open_file(target(), O_PATH | O_DIRECTORY).value();
    notes_.clear();
    UnpackOptions options;
    options.input = input.get();
    options.folder = target_fd.get();
    options.name = name;
    options.folder_only = folder_only_;
    options.on_note = [this](const std::string& note) { notes_.push_back(note); };
    return unpack(options);
  }
  Result<std::size_t> unpack_members(const std::vector<Member>& members, const std::string& name = "tree") {
    return unpack_bytes(tar_of(members), name);
  }
  std::string content(const std::string& path) const { return read_file(target() / path).value_or("missing"); }
  unsigned mode(const std::string& path) const {
    struct stat status {};
    return ::lstat((target() / path).c_str(), &status) == 0 ? status.st_mode & 07777U : 0;
  }
  void expect_refused(const std::vector<Member>& members, const std::string& why, const std::string& name = "tree") {
    SCOPED_TRACE(members.back().path);
    const auto result = unpack_members(members, name);
    ASSERT_FALSE(result.has_value()) << why;
    EXPECT_EQ(result.error().code, ErrorCode::kDenied) << result.error().message;
    EXPECT_THAT(result.error().message, HasSubstr(why));
    expect_nothing_outside();
  }
  void expect_nothing_outside() const {
    EXPECT_EQ(read_file(folder_.path() / "outside").value_or("gone"), "mine");
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(folder_.path())) names.push_back(entry.path().filename());
    EXPECT_THAT(names, ::testing::UnorderedElementsAre("outside", "target"));
  }

  TemporaryFolder folder_;
  bool folder_only_ = false;
  std::vector<std::string> notes_;
};

TEST_F(Unpack, ATreeComesOutUnderItsNewName) {
  const auto count = unpack_members({{"old", AE_IFDIR, "", "", 0500},
                                     {"old/sub/deep", AE_IFREG, "deep", "", 0640},
                                     {"old/file", AE_IFREG, "text", "", 06755},
                                     {"old/again", AE_IFREG, "", "old/file"},
                                     {"old/link", AE_IFLNK, "sub/deep"},
                                     {"old/far", AE_IFLNK, "/etc/passwd"},
                                     {"old/name\xff\xc3(", AE_IFREG, "bytes"}});
  ASSERT_TRUE(count) << count.error().message;
  EXPECT_EQ(*count, 7U);
  EXPECT_EQ(content("tree/sub/deep"), "deep");
  EXPECT_EQ(content("tree/name\xff\xc3("), "bytes");
  EXPECT_EQ(mode("tree"), 0500U);
  EXPECT_EQ(mode("tree/sub/deep"), 0640U);
  EXPECT_EQ(mode("tree/file"), 0755U) << "without set-id bits";
  EXPECT_EQ(fs::hard_link_count(target() / "tree/again"), 2U);
  EXPECT_EQ(fs::read_symlink(target() / "tree/link"), "sub/deep");
  EXPECT_EQ(fs::read_symlink(target() / "tree/far"), "/etc/passwd");
  struct stat status {};
  ASSERT_EQ(::stat((target() / "tree/file").c_str(), &status), 0);
  EXPECT_EQ(status.st_mtime, 1'600'000'000);
  EXPECT_EQ(status.st_uid, ::getuid());
  ::chmod((target() / "tree").c_str(), 0755);  // to be removed
}

TEST_F(Unpack, ContentsGoIntoTheFolderWhichStaysAsItIs) {
  ::chmod(target().c_str(), 0751);
  ASSERT_TRUE(unpack_members({{".", AE_IFDIR, "", "", 0777}, {"./a", AE_IFREG, "1"}, {"./b/c", AE_IFREG, "2"}}, ""));
  EXPECT_EQ(content("a") + content("b/c"), "12");
  struct stat status {};
  ASSERT_EQ(::stat(target().c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 07777U, 0751U);
}

TEST_F(Unpack, PathsThatEscapeAreRefused) {
  expect_refused({{"/etc/evil"}}, "absolute path /etc/evil");
  expect_refused({{"tree"}, {"/tree/evil"}}, "absolute path");
  expect_refused({{"tree/../../evil"}}, "tree/../../evil");
  expect_refused({{"../evil"}}, "../evil");
  expect_refused({{".."}}, "..");
  expect_refused({{"tree/.."}}, "tree/..");
  fs::remove(target() / "tree");
  expect_refused({{"tree", AE_IFDIR}, {"other/evil"}}, "outside of what was asked for");
  expect_refused({{"./.."}}, "..", "");
}

TEST_F(Unpack, NothingIsWrittenThroughALinkOfTheArchive) {
  expect_refused({{"tree", AE_IFDIR}, {"tree/out", AE_IFLNK, folder_.path().string()}, {"tree/out/evil"}},
                 "symbolic link");
  expect_refused({{"tree", AE_IFDIR}, {"tree/a", AE_IFLNK, "."}, {"tree/a/evil"}}, "symbolic link");
  fs::remove_all(target() / "tree");
  expect_refused({{"tree", AE_IFLNK, folder_.path().string()}, {"tree/evil"}}, "symbolic link");
  expect_refused({{"tree", AE_IFLNK, folder_.path().string()}, {"tree", AE_IFDIR}}, "symbolic link");
}

TEST_F(Unpack, AFileThatReplacesALinkLeavesItsTargetAlone) {
  const std::string outside = folder_.path() / "outside";
  ASSERT_TRUE(unpack_members({{"tree", AE_IFLNK, outside}, {"tree", AE_IFREG, "new"}}));
  EXPECT_EQ(content("tree"), "new");
  expect_nothing_outside();
}

TEST_F(Unpack, NothingIsWrittenThroughALinkThatWasThereBefore) {
  fs::create_directory(target() / "tree");
  fs::create_directory_symlink(folder_.path(), target() / "tree/out");
  expect_refused({{"tree/out/evil"}}, "symbolic link");
  // Its name can be taken.
  ASSERT_TRUE(unpack_members({{"tree/out", AE_IFREG, "file"}}));
  EXPECT_EQ(content("tree/out"), "file");
  expect_nothing_outside();
}

TEST_F(Unpack, RelativeLinksThatLeaveAreRefused) {
  expect_refused({{"tree/sub/link", AE_IFLNK, "../../../outside"}}, "leaves the destination");
  expect_refused({{"tree", AE_IFLNK, "../outside"}}, "leaves the destination");
}

TEST_F(Unpack, HardLinksLeadOnlyToWhatTheArchiveBrought) {
  ASSERT_TRUE(write_file_atomically(target() / "tree-mine", "mine"));
  fs::create_directory(target() / "tree");
  ASSERT_TRUE(write_file_atomically(target() / "tree/secret", "mine"));
  expect_refused({{"tree/x", AE_IFREG, "", "tree/secret"}}, "not part of the archive");
  expect_refused({{"tree/x", AE_IFREG, "", "../outside"}}, "../outside");
  expect_refused({{"tree/x", AE_IFREG, "", folder_.path() / "outside"}}, "absolute path");
  expect_refused({{"tree/l", AE_IFLNK, folder_.path() / "outside"}, {"tree/x", AE_IFREG, "", "tree/l"}},
                 "not part of the archive");
  expect_refused({{"tree/d", AE_IFLNK, folder_.path()}, {"tree/x", AE_IFREG, "", "tree/d/outside"}}, "symbolic link");
  EXPECT_EQ(content("tree/secret"), "mine");
  EXPECT_EQ(fs::hard_link_count(target() / "tree/secret"), 1U);
}

TEST_F(Unpack, AFileWithOtherLinksIsReplacedAndNotWrittenTo) {
  fs::create_hard_link(folder_.path() / "outside", target() / "tree");
  ASSERT_TRUE(unpack_members({{"tree", AE_IFREG, "new"}}));
  EXPECT_EQ(content("tree"), "new");
  expect_nothing_outside();
}

TEST_F(Unpack, DeviceNodesAreRefusedAndPipesLeftOut) {
  expect_refused({{"tree", AE_IFCHR}}, "device node");
  expect_refused({{"tree", AE_IFBLK}}, "device node");
  ASSERT_TRUE(unpack_members({{"tree", AE_IFIFO}}));
  EXPECT_THAT(notes_, ::testing::ElementsAre(HasSubstr("left out tree")));
}

TEST_F(Unpack, FoldersAndFilesDoNotReplaceEachOther) {
  fs::create_directory(target() / "folder");
  const auto over_folder = unpack_members({{"tree", AE_IFREG, "x"}}, "folder");
  ASSERT_FALSE(over_folder);
  EXPECT_EQ(over_folder.error().code, ErrorCode::kConflict);
  ASSERT_TRUE(write_file_atomically(target() / "file", "x"));
  const auto over_file = unpack_members({{"tree", AE_IFDIR}}, "file");
  ASSERT_FALSE(over_file);
  EXPECT_EQ(over_file.error().code, ErrorCode::kConflict);
  folder_only_ = true;
  const auto no_folder = unpack_members({{"tree", AE_IFREG, "x"}}, "new");
  ASSERT_FALSE(no_folder);
  EXPECT_THAT(no_folder.error().message, HasSubstr("new does not exist"));
  EXPECT_FALSE(fs::exists(target() / "new"));
}

TEST_F(Unpack, BrokenArchivesSaySo) {
  const std::string whole = tar_of({{"tree", AE_IFREG, std::string(5000, 'x')}});
  const auto cut = unpack_bytes(whole.substr(0, 3000));
  ASSERT_FALSE(cut);
  EXPECT_EQ(cut.error().code, ErrorCode::kUnavailable);
  EXPECT_FALSE(unpack_bytes(std::string(4096, 'x')));
  const auto nothing = unpack_bytes("");
  ASSERT_TRUE(nothing);
  EXPECT_EQ(*nothing, 0U);
  EXPECT_FALSE(unpack_bytes(whole + std::string(2U << 20U, 'x'))) << "what goes on after the end";
}

}  // namespace
}  // namespace sbx::archive
