#include "files/fuse_client_test_support.h"

namespace sbx::files {
namespace {

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
