#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include "files/fuse_client_test_support.h"

namespace sbx::files {
namespace {

// In a child with mounts of its own: 0 if all is well.
int hold_what_was_taken_away(const std::filesystem::path& source, const std::filesystem::path& place) {
  if (::unshare(CLONE_NEWUSER | CLONE_NEWNS) != 0) return 77;
  if (::mount(source.c_str(), place.c_str(), nullptr, MS_BIND, nullptr) != 0) return 77;
  const auto workspace = open_workspace({0, place.native(), false, {}});
  const UniqueFd below(::open((place / place.relative_path() / "file").c_str(), O_PATH | O_CLOEXEC));
  if (!workspace || !below.valid() || !workspace->holds(below.get())) return 1;
  if (::umount2(place.c_str(), MNT_DETACH) != 0) return 2;
  if (workspace->attached()) return 3;
  return workspace->holds(below.get()) ? 4 : 0;
}

// Its paths begin at its own root then, where the guest may have folders of the same names as those of its place.
TEST(Workspace, ThatWasTakenOutOfTheJailHoldsNothing) {
  const auto folder = TemporaryFolder::make("sbx-taken").value();
  const auto place = std::filesystem::canonical(folder.path()) / "place";
  const auto source = folder.path() / "source";
  std::filesystem::create_directory(place);
  std::filesystem::create_directories(source / place.relative_path());
  ASSERT_TRUE(write_file_atomically(source / place.relative_path() / "file", "x"));
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) ::_exit(hold_what_was_taken_away(source, place));
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFEXITED(status));
  if (WEXITSTATUS(status) == 77) GTEST_SKIP() << "no mount namespace of its own";
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

TEST(NodeTable, KeepsFewDescriptorsOverADeepTree) {
  FuseClient client(Dispatcher::Limits{.nodes = {.nodes = 10000, .descriptors = 4}, .cache = {}});
  std::vector<NodeId> chain{client.ws0()};
  for (int i = 0; i < 200; ++i) chain.push_back(client.mkdir(chain.back(), "deep").node());
  EXPECT_LE(client.dispatcher().nodes().descriptors(), 4U);
  for (const auto node : chain) EXPECT_EQ(client.getattr(node).error, 0);
  EXPECT_EQ(client.getattr(chain.back()).error, 0);
  EXPECT_LE(client.dispatcher().nodes().descriptors(), 4U);
}

TEST(NodeTable, ForgettingLeavesOnlyTheRoots) {
  FuseClient client;
  std::vector<NodeId> chain{client.ws0()};
  for (int i = 0; i < 50; ++i) chain.push_back(client.mkdir(chain.back(), "d").node());
  for (std::size_t i = 1; i < chain.size(); ++i) client.forget(chain[i], 1);  // parents first
  EXPECT_EQ(client.dispatcher().nodes().size(), 2U);
  EXPECT_EQ(client.dispatcher().nodes().descriptors(), 0U);
}

TEST(NodeTable, FoldersThatWereEachTheOthersParentDoNotLoop) {
  FuseClient client(Dispatcher::Limits{.nodes = {.nodes = 1000, .descriptors = 1}, .cache = {}});
  const auto a = client.mkdir(client.ws0(), "a").node();
  const auto b = client.mkdir(a, "b").node();
  std::filesystem::rename(client.host("a/b"), client.host("b"));
  std::filesystem::rename(client.host("a"), client.host("b/a"));
  EXPECT_EQ(client.lookup(client.ws0(), "b").node(), b);
  EXPECT_EQ(client.lookup(b, "a").node(), a);
  client.mkdir(client.ws0(), "x");
  client.mkdir(client.ws0(), "y");
  EXPECT_EQ(client.getattr(a).error, 0);
  EXPECT_EQ(client.getattr(b).error, 0);
}

TEST(NodeTable, AFileReplacedOnTheHostIsAnotherNode) {
  FuseClient client;
  ASSERT_TRUE(write_file_atomically(client.host("f"), "one"));
  const auto before = client.lookup(client.ws0(), "f").node();
  ASSERT_TRUE(write_file_atomically(client.host("f"), "three"));
  const auto after = client.lookup(client.ws0(), "f");
  EXPECT_NE(after.node(), before);
  EXPECT_EQ(after.as<fuse_entry_out>().attr.size, 5U);
}

}  // namespace
}  // namespace sbx::files
