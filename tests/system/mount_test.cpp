// Folders that are mounted into a running sandbox, and taken away again.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "instance.h"
#include "processes.h"

namespace sbx::test {
namespace {

using ::testing::HasSubstr;

class LateMount : public ::testing::Test {
 protected:
  LateMount() {
    EXPECT_TRUE(write_file_atomically(folder_.path() / "file", "late", 0644));
    EXPECT_TRUE(write_file_atomically(other_.path() / "file", "other", 0644));
  }
  static void expect_ok(const Outcome& outcome) { EXPECT_EQ(outcome.status, 0) << outcome.out << outcome.err; }
  static void fails(const std::vector<std::string>& arguments, const std::string& why) {
    const auto outcome = sbx(arguments);
    EXPECT_EQ(outcome.status, 1) << why;
    EXPECT_THAT(outcome.err, HasSubstr(why));
  }
  std::string source() const { return folder_.path().string(); }

  TemporaryFolder folder_ = TemporaryFolder::make("sbx-late").value();
  TemporaryFolder other_ = TemporaryFolder::make("sbx-other").value();
};

TEST_F(LateMount, ComesAndGoesBesideWhatIsInUse) {
  Sandbox sandbox({"--auto-stop", "off"});
  // Holds a folder of the first workspace and writes to it all along.
  sandbox.background("mkdir held; cd held; exec 3>open; while sleep 0.2; do echo x >&3 || exit; touch alive; done");
  expect_ok(sbx({"mount", sandbox.name(), source() + ":/opt/late"}));
  expect_ok(sbx({"mount", sandbox.name(), other_.path().string() + ":/opt/other:ro"}));
  EXPECT_EQ(sandbox.shell("cat /opt/late/file /opt/other/file; echo made > /opt/late/made").out, "lateother");
  EXPECT_EQ(read_file(folder_.path() / "made").value_or("missing"), "made\n");
  // The host's word, whatever root in the sandbox does.
  EXPECT_NE(sandbox.root("mount -o remount,rw,bind /opt/other 2>/dev/null; echo bad > /opt/other/file").status, 0);
  EXPECT_EQ(read_file(other_.path() / "file").value_or("gone"), "other");
  // What the host changes is seen.
  EXPECT_TRUE(write_file_atomically(folder_.path() / "file", "changed", 0644));
  EXPECT_EQ(sandbox.shell("cat /opt/late/file").out, "changed");
  EXPECT_EQ(sandbox.inspected()["mounts"].size(), 3U);

  // In use there it stays, unless it must go.
  expect_ok(sandbox.root("mkdir -p /opt/kept && mount --bind /opt/late /opt/kept"));
  sandbox.background("exec 4</opt/late/file; cd /opt/late; touch made-ready; exec sleep 1000");
  ASSERT_TRUE(eventually([&] { return std::filesystem::exists(folder_.path() / "made-ready"); }));
  fails({"umount", sandbox.name(), "/opt/late"}, "/opt/late is in use in the sandbox");
  EXPECT_EQ(sandbox.shell("cat /opt/late/file").out, "changed");
  EXPECT_EQ(sandbox.inspected()["mounts"].size(), 3U);
  expect_ok(sbx({"umount", "--force", sandbox.name(), "/opt/late"}));
  // What the guest has read it may keep; nothing more comes, and nothing goes.
  EXPECT_TRUE(write_file_atomically(folder_.path() / "secret", "of the host", 0644));
  const auto after = sandbox.root(
      "cat /opt/late/secret /opt/kept/secret /proc/*/cwd/secret /run/sbx/workspaces/1/secret; ls /opt/kept");
  EXPECT_EQ(after.out.find("of the host"), std::string::npos) << after.out;
  EXPECT_EQ(after.out.find("secret"), std::string::npos) << after.out;
  EXPECT_NE(sandbox.root("echo bad > /opt/kept/new").status, 0);
  EXPECT_FALSE(std::filesystem::exists(folder_.path() / "new"));
  EXPECT_EQ(sandbox.shell("cat /opt/other/file").out, "other");
  // The first workspace never noticed.
  std::filesystem::remove(sandbox.workspace() / "held/alive");
  EXPECT_TRUE(eventually([&] { return std::filesystem::exists(sandbox.workspace() / "held/alive"); }));
}

TEST_F(LateMount, StaysWhateverEnds) {
  Sandbox sandbox({"--auto-stop", "off"});
  expect_ok(sbx({"mount", sandbox.name(), source() + ":/opt/late:ro"}));
  expect_ok(sbx({"mount", sandbox.name(), other_.path().string() + ":/opt/other"}));
  const auto both = [&] {
    return sandbox.shell("cat /opt/late/file /opt/other/file; touch /opt/late/x").out == "lateother";
  };
  EXPECT_TRUE(both());
  const auto keeper = sandbox.inspected()["keeper_pid"].get<pid_t>();
  EXPECT_TRUE(kill_now(find_in_tree(keeper, "sbx-files")));
  EXPECT_TRUE(eventually(both)) << "after the end of sbx-files";
  EXPECT_TRUE(kill_now(daemon_pid()));
  EXPECT_TRUE(eventually(both)) << "after the end of the daemon";
  // The next daemon takes away what the last one mounted.
  expect_ok(sbx({"umount", sandbox.name(), "/opt/other"}));
  EXPECT_NE(sandbox.shell("cat /opt/other/file").status, 0);
  expect_ok(sbx({"stop", sandbox.name()}));
  EXPECT_EQ(sandbox.shell("cat /opt/late/file; ls /opt/other").out, "late") << "after a restart";
  EXPECT_FALSE(std::filesystem::exists(folder_.path() / "x"));
}

TEST_F(LateMount, IsTheFirstOfASandboxWithout) {
  const std::string name = "late-" + std::to_string(::getpid());
  expect_ok(sbx({"create", "--name", name, "shell"}));
  expect_ok(sbx({"mount", name, source() + ":/opt/late"}));
  EXPECT_EQ(sbx({"exec", name, "cat", "/opt/late/file"}).out, "late");
  EXPECT_EQ(sbx({"exec", name, "pwd"}).out, "/home/agent\n") << "it is not the primary workspace";
  fails({"mount", name, source() + ":/opt/late"}, "is mounted at /opt/late already");
  expect_ok(sbx({"mount", name, source() + ":/srv/a/b"}));
  fails({"mount", name, source() + ":/srv/a"}, "would hide the workspace at /srv/a/b");
  fails({"mount", name, source() + ":/usr"}, "would hide a system folder");
  fails({"mount", name, source() + "/missing:/opt/x"}, "does not exist");
  fails({"umount", name, "/opt/nothing"}, "nothing is mounted at /opt/nothing");
  fails({"umount", name, "relative"}, "not an absolute path");
  expect_ok(sbx({"umount", name, "/opt/late/"}));
  expect_ok(sbx({"umount", name, "/srv/a/b"}));
  EXPECT_NE(sbx({"exec", name, "cat", "/opt/late/file"}).status, 0);
  expect_ok(sbx({"mount", name, source() + ":/opt/late"}));
  EXPECT_EQ(sbx({"exec", name, "cat", "/opt/late/file"}).out, "late") << "after none was left";
  expect_ok(sbx({"rm", "--force", name}));
}

// A workspace within another one is at the mercy of who may write that: what the guest puts in its place is not
// followed.
TEST_F(LateMount, DoesNotFollowALinkThatTheGuestPutsInAWorkspacesPlace) {
  Sandbox sandbox({"--auto-stop", "off"});
  const auto inner = sandbox.workspace() / "inner";
  std::filesystem::create_directory(inner);
  EXPECT_TRUE(write_file_atomically(inner / "file", "inner", 0644));
  expect_ok(sbx({"mount", sandbox.name(), inner.string() + ":/opt/inner"}));
  EXPECT_EQ(sandbox.shell("cat /opt/inner/file").out, "inner");
  expect_ok(sandbox.shell("mv inner taken; ln -s " + source() + " inner"));
  ASSERT_TRUE(std::filesystem::is_symlink(inner));
  // Its file server is not started again with the link, nor with less than what was asked for.
  const auto keeper = sandbox.inspected()["keeper_pid"].get<pid_t>();
  EXPECT_TRUE(kill_now(find_in_tree(keeper, "sbx-files")));
  for (int i = 0; i < 3; ++i) {
    const auto seen = sbx({"exec", "-w", "/", sandbox.name(), "timeout", "20", "cat", "/opt/inner/file"});
    EXPECT_EQ(seen.out.find("late"), std::string::npos) << seen.out;
  }
  EXPECT_LE(find_in_tree(keeper, "sbx-files"), 0);
  // Taken away in this state it is gone, and the rest comes back.
  expect_ok(sbx({"umount", "--force", sandbox.name(), "/opt/inner"}));
  EXPECT_TRUE(eventually([&] { return sandbox.shell("cat taken/file").out == "inner"; }));
}

TEST_F(LateMount, LeavesThePrimaryWorkspaceWhereItIs) {
  Sandbox sandbox({"--auto-stop", "off"});
  fails({"umount", "--force", sandbox.name(), sandbox.workspace().string()}, "is the primary workspace");
  EXPECT_EQ(sandbox.shell("pwd").out, sandbox.workspace().string() + "\n");
}

}  // namespace
}  // namespace sbx::test
