#include "keeper/workspace_source.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>

#include "base/file.h"
#include "keeper/files_server.h"

namespace sbx::keeper {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

class WorkspaceSource : public ::testing::Test {
 protected:
  WorkspaceSource() {
    for (const char* name : {"outer", "outer/inner", "secret"}) fs::create_directory(root_ / name);
    EXPECT_TRUE(write_file_atomically(root_ / "secret/file", "of the host", 0644));
  }
  static ErrorCode refusal(const fs::path& path) {
    const auto opened = open_source({0, "/w", false, false, path.native()});
    return opened ? ErrorCode::kInternal : opened.error().code;
  }

  TemporaryFolder folder_ = TemporaryFolder::make("sbx-source").value();
  fs::path root_ = fs::canonical(folder_.path());
};

TEST_F(WorkspaceSource, IsTheFolderOrFileOfThatPath) {
  const auto opened = open_source({0, "/w", false, false, root_ / "outer/inner"});
  ASSERT_TRUE(opened) << opened.error().describe();
  struct stat found {};
  struct stat meant {};
  ASSERT_EQ(::fstat(opened->get(), &found), 0);
  ASSERT_EQ(::stat((root_ / "outer/inner").c_str(), &meant), 0);
  EXPECT_EQ(found.st_ino, meant.st_ino);
  EXPECT_TRUE(open_source({0, "/w", true, true, root_ / "secret/file"}));
  EXPECT_EQ(refusal(root_ / "missing"), ErrorCode::kNotFound);
}

TEST_F(WorkspaceSource, IsNotLookedForBehindALinkThatWasPutIntoItsPlaceOrOnItsWay) {
  fs::remove(root_ / "outer/inner");
  for (const fs::path& target : {root_ / "secret", fs::path("../secret"), fs::path("/proc/self/cwd")}) {
    fs::create_directory_symlink(target, root_ / "outer/inner");
    EXPECT_EQ(refusal(root_ / "outer/inner"), ErrorCode::kDenied) << target;
    EXPECT_EQ(refusal(root_ / "outer/inner/file"), ErrorCode::kDenied) << target;
    fs::remove(root_ / "outer/inner");
  }
  EXPECT_EQ(refusal("/proc/self/cwd"), ErrorCode::kDenied);
  EXPECT_EQ(refusal("/proc/self/root/etc"), ErrorCode::kDenied);
}

// What bubblewrap finds at the path is what the guest has put there after it was opened.
TEST_F(WorkspaceSource, ThatHasBecomeAnotherInTheMeantimeIsNotServed) {
  const auto program = fs::read_symlink("/proc/self/exe").parent_path() / "sbx-files";
  const auto serve = [&](const fs::path& opened, const fs::path& bound) {
    const auto fd = open_source({0, "/w", false, false, opened.native()}).value();
    const auto null = [] { return open_file("/dev/null", O_RDWR).value(); };
    const UniqueFd port = null(), control = null(), journal = null(), before = null();
    LaunchSpec spec;
    spec.workspaces.push_back({0, "/w", false, false, bound.native()});
    FilesServerFds fds{port.get(), control.get(), journal.get(), before.get(), {fd.get()}};
    const auto output = files_server_command(spec, program, fds).output();
    return output ? "served" : output.error().message;
  };
  EXPECT_THAT(serve(root_ / "outer/inner", root_ / "secret"), HasSubstr("has become another"));
  EXPECT_THAT(serve(root_ / "outer/inner", root_ / "outer/inner"), ::testing::Not(HasSubstr("has become another")))
      << "ends for want of a port";
}

}  // namespace
}  // namespace sbx::keeper
