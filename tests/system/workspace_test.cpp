// The workspace as the guest sees it, and what it must not see.
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <fstream>

#include "instance.h"

namespace sbx::test {
namespace {

namespace fs = std::filesystem;

class WorkspaceFiles : public ::testing::Test {
 protected:
  static void SetUpTestSuite() { sandbox = std::make_unique<Sandbox>(); }
  static void TearDownTestSuite() { sandbox.reset(); }
  static std::unique_ptr<Sandbox> sandbox;
};
std::unique_ptr<Sandbox> WorkspaceFiles::sandbox;

TEST_F(WorkspaceFiles, BothSidesSeeTheSameFilesUnderTheSamePath) {
  ASSERT_TRUE(write_file_atomically(sandbox->workspace() / "from-host", "hello", 0644));
  const auto outcome =
      sandbox->shell("cat " + (sandbox->workspace() / "from-host").string() + " && echo hi > from-guest");
  EXPECT_EQ(outcome.out, "hello") << outcome.err;
  EXPECT_EQ(read_file(sandbox->workspace() / "from-guest").value_or("missing"), "hi\n");
  struct stat info {};
  ASSERT_EQ(::stat((sandbox->workspace() / "from-guest").c_str(), &info), 0);
  EXPECT_EQ(info.st_uid, ::getuid());
  EXPECT_EQ(sandbox->shell("stat -c %U from-host from-guest").out, "agent\nagent\n");
}

TEST_F(WorkspaceFiles, NothingOutsideIsReachable) {
  const fs::path secret = fs::path(sandbox->workspace().string() + "-secret");
  ASSERT_TRUE(write_file_atomically(secret, "host secret"));
  fs::create_symlink(secret, sandbox->workspace() / "link");
  const auto outcome = sandbox->root("cat link ../" + secret.filename().string() + " " + secret.string());
  fs::remove(secret);
  EXPECT_NE(outcome.status, 0);
  EXPECT_EQ(outcome.out.find("host secret"), std::string::npos);
}

TEST_F(WorkspaceFiles, NoDeviceNodesAndNoSetuidBitsReachTheHost) {
  EXPECT_NE(sandbox->root("mknod dev b 8 0").status, 0);
  (void)sandbox->root("cp /bin/true suid; chmod 4755 suid");
  struct stat info {};
  if (::stat((sandbox->workspace() / "suid").c_str(), &info) == 0) {
    EXPECT_EQ(info.st_mode & 07000U, 0U);
  }
  EXPECT_FALSE(fs::exists(sandbox->workspace() / "dev"));
}

TEST_F(WorkspaceFiles, CpCopiesBothWays) {
  auto folder = TemporaryFolder::make("sbx-cp").value();
  ASSERT_TRUE(write_file_atomically(folder.path() / "in", "copied", 0755));
  const auto in = sbx({"cp", (folder.path() / "in").string(), sandbox->name() + ":/opt/file"});
  ASSERT_EQ(in.status, 0) << in.err;
  EXPECT_EQ(sandbox->shell("cat /opt/file; stat -c %a /opt/file").out, "copied755\n");
  const auto out = sbx({"cp", sandbox->name() + ":/opt/file", (folder.path() / "out").string()});
  ASSERT_EQ(out.status, 0) << out.err;
  EXPECT_EQ(read_file(folder.path() / "out").value_or("missing"), "copied");
}

TEST(ReadOnlyWorkspace, EvenRootCannotWrite) {
  Sandbox sandbox({}, ":ro");
  ASSERT_TRUE(write_file_atomically(sandbox.workspace() / "file", "kept", 0644));
  const auto outcome =
      sandbox.root("cat file; mount -o remount,rw,bind . 2>/dev/null; echo bad > file; touch new; rm -f file");
  EXPECT_EQ(outcome.out, "kept") << outcome.err;
  EXPECT_EQ(read_file(sandbox.workspace() / "file").value_or("gone"), "kept");
  EXPECT_FALSE(fs::exists(sandbox.workspace() / "new"));
}

TEST(MovedWorkspace, IsWhereItWasAskedForAlsoAfterARestart) {
  const auto folder = TemporaryFolder::make("sbx-moved").value();
  ASSERT_TRUE(write_file_atomically(folder.path() / "file", "host", 0644));
  Sandbox sandbox({}, ":/project/here", {folder.path().string() + ":/opt/reference:ro"});
  EXPECT_EQ(sandbox.shell("pwd; cat /opt/reference/file; echo guest > made; touch /opt/reference/x").out,
            "/project/here\nhost");
  EXPECT_EQ(read_file(sandbox.workspace() / "made").value_or("missing"), "guest\n");
  EXPECT_NE(sandbox.shell("test -e " + sandbox.workspace().string()).status, 0);
  EXPECT_EQ(sandbox.root("cat /proc/self/mountinfo /proc/*/cmdline | tr '\\0' ' '").out.find("sbx-moved"),
            std::string::npos)
      << "where it is on the host is not told";
  const auto mounts = sandbox.inspected()["mounts"];
  EXPECT_EQ(mounts[0]["target"], "/project/here");
  EXPECT_EQ(mounts[1]["source"], folder.path().string());
  EXPECT_EQ(sbx({"stop", sandbox.name()}).status, 0);
  EXPECT_EQ(sandbox.shell("cat made /opt/reference/file").out, "guest\nhost");
}

}  // namespace
}  // namespace sbx::test
