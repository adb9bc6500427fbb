#include <sys/xattr.h>
#include <unistd.h>

#include <set>

#include "files/fuse_client_test_support.h"

namespace sbx::files {
namespace {

std::vector<std::string> names_in(const Answer& listing, std::uint64_t& next) {
  std::vector<std::string> names;
  for (std::size_t at = 0; at < listing.payload.size();) {
    const auto entry = listing.as<fuse_dirent>(at);
    names.push_back(listing.payload.substr(at + FUSE_NAME_OFFSET, entry.namelen));
    next = entry.off;
    at += FUSE_REC_ALIGN(FUSE_NAME_OFFSET + entry.namelen);
  }
  return names;
}

TEST(Dispatcher, AgreesOnLargeMessagesAndNeitherWritebackNorRemoteLocks) {
  FuseClient client;
  const auto out = client.init().as<fuse_init_out>();
  EXPECT_EQ(out.major, 7U);
  EXPECT_EQ(out.max_write, kMaxWrite);
  EXPECT_EQ(out.max_pages * 4096U, kMaxWrite);
  EXPECT_EQ(client.ask(FUSE_OPEN, client.ws0(), bytes_of(fuse_open_in{})).error, ENOSYS);
  EXPECT_EQ(client.ask(FUSE_OPENDIR, client.ws0(), bytes_of(fuse_open_in{})).error, ENOSYS);
  EXPECT_EQ(out.flags & (FUSE_WRITEBACK_CACHE | FUSE_ATOMIC_O_TRUNC | FUSE_POSIX_LOCKS | FUSE_FLOCK_LOCKS |
                         FUSE_EXPORT_SUPPORT),
            0U);
}

TEST(Dispatcher, TheRootListsTheWorkspaces) {
  FuseClient client;
  std::uint64_t next = 0;
  EXPECT_EQ(names_in(client.list(FUSE_ROOT_ID), next), (std::vector<std::string>{".", "..", "0", "1"}));
  EXPECT_TRUE(client.list(FUSE_ROOT_ID, next).payload.empty());
  EXPECT_EQ(client.lookup(FUSE_ROOT_ID, "2").error, ENOENT);
  EXPECT_EQ(client.lookup(FUSE_ROOT_ID, "00").error, ENOENT);
  EXPECT_EQ(client.mkdir(FUSE_ROOT_ID, "2").error, EROFS);
}

TEST(Dispatcher, WritesAndReadsAFile) {
  FuseClient client;
  const auto created = client.create(client.ws0(), "f");
  ASSERT_EQ(created.error, 0);
  EXPECT_EQ(client.write(created.node(), 0, "hello").as<fuse_write_out>().size, 5U);
  EXPECT_EQ(client.read(created.node(), 1, 100).payload, "ello");
  EXPECT_EQ(client.read(created.node(), 5, 100).payload, "");
  EXPECT_EQ(*read_file(client.host("f")), "hello");
  const auto attr = client.getattr(created.node()).as<fuse_attr_out>().attr;
  EXPECT_EQ(attr.uid, kAgentId);
  EXPECT_EQ(attr.gid, kAgentId);
  EXPECT_EQ(attr.mode, S_IFREG | 0644U);
}

TEST(Dispatcher, AppendsAtTheHostsEndOfFile) {
  FuseClient client;
  const auto created = client.create(client.ws0(), "log");
  ASSERT_TRUE(write_file_atomically(client.folder() / "outside/x", "from the host;"));
  {
    UniqueFd host(::open(client.host("log").c_str(), O_WRONLY));
    ASSERT_TRUE(write_all(host.get(), "host;"));
  }
  client.write(created.node(), 0, "guest", O_APPEND);
  EXPECT_EQ(*read_file(client.host("log")), "host;guest");
}

TEST(Dispatcher, ListsALargeFolderInPiecesWithoutLossOrRepetition) {
  FuseClient client;
  std::set<std::string> expected{".", ".."};
  for (int i = 0; i < 1000; ++i) {
    expected.insert("entry" + std::to_string(i));
    ASSERT_TRUE(write_file_atomically(client.host("entry" + std::to_string(i)), ""));
  }
  std::multiset<std::string> seen;
  std::uint64_t next = 0;
  while (true) {
    const auto listing = client.list(client.ws0(), next, 1000);
    ASSERT_EQ(listing.error, 0);
    ASSERT_LE(listing.payload.size(), 1000U);
    if (listing.payload.empty()) break;
    for (auto& name : names_in(listing, next)) seen.insert(name);
  }
  EXPECT_EQ(std::set<std::string>(seen.begin(), seen.end()), expected);
  EXPECT_EQ(seen.size(), expected.size());
}

TEST(Dispatcher, AnUnlinkedOpenFileKeepsWorking) {
  FuseClient client;
  const auto created = client.create(client.ws0(), "f");
  client.write(created.node(), 0, "data");
  EXPECT_EQ(client.ask(FUSE_UNLINK, client.ws0(), name_of("f")).error, 0);
  EXPECT_EQ(client.read(created.node(), 0, 10).payload, "data");
  EXPECT_EQ(client.getattr(created.node()).as<fuse_attr_out>().attr.nlink, 0U);
}

TEST(Dispatcher, NodesFollowRenamesAndExchanges) {
  FuseClient client(Dispatcher::Limits{.nodes = {.nodes = 1000, .descriptors = 1}, .cache = {}});
  const auto a = client.mkdir(client.ws0(), "a").node();
  const auto b = client.mkdir(client.ws0(), "b").node();
  const auto file = client.create(a, "f");
  client.write(file.node(), 0, "abc");
  EXPECT_EQ(client.rename(a, "f", b, "g").error, 0);
  EXPECT_EQ(client.rename(client.ws0(), "b", a, "b").error, 0);
  EXPECT_EQ(client.mkdir(client.ws0(), "other").error, 0);  // takes the only spare descriptor
  EXPECT_EQ(client.getattr(file.node()).as<fuse_attr_out>().attr.size, 3U);
  const auto second = client.create(a, "s");
  EXPECT_EQ(client.rename(a, "s", b, "g", RENAME_NOREPLACE).error, EEXIST);
  EXPECT_EQ(client.rename(a, "s", b, "g", RENAME_EXCHANGE).error, 0);
  EXPECT_EQ(client.getattr(file.node()).as<fuse_attr_out>().attr.size, 3U);
  EXPECT_EQ(client.getattr(second.node()).as<fuse_attr_out>().attr.size, 0U);
  EXPECT_EQ(client.lookup(a, "s").node(), file.node());
}

TEST(Dispatcher, HardLinksShareANode) {
  FuseClient client;
  const auto file = client.create(client.ws0(), "f").node();
  EXPECT_EQ(client.link(file, client.ws0(), "g").node(), file);
  EXPECT_EQ(client.getattr(file).as<fuse_attr_out>().attr.nlink, 2U);
  EXPECT_EQ(client.ask(FUSE_UNLINK, client.ws0(), name_of("f")).error, 0);
  EXPECT_EQ(client.lookup(client.ws0(), "g").node(), file);
}

TEST(Dispatcher, SetsSizeTimesAndMode) {
  FuseClient client;
  const auto file = client.create(client.ws0(), "f").node();
  fuse_setattr_in in{};
  in.valid = FATTR_SIZE | FATTR_MTIME | FATTR_MODE;
  in.size = 1U << 30U;
  in.mtime = 1'000'000'000;
  in.mtimensec = 5;
  in.mode = 0400;
  const auto attr = client.setattr(file, in).as<fuse_attr_out>().attr;
  EXPECT_EQ(attr.size, 1U << 30U);
  EXPECT_LT(attr.blocks, 64U);
  EXPECT_EQ(attr.mtime, 1'000'000'000U);
  EXPECT_EQ(attr.mtimensec, 5U);
  EXPECT_EQ(attr.mode & 07777U, 0400U);
}

TEST(Dispatcher, ChownIsNothingForTheMappedOwnerAndRefusedForAnyOther) {
  FuseClient client;
  const auto file = client.create(client.ws0(), "f").node();
  fuse_setattr_in in{};
  in.valid = FATTR_UID | FATTR_GID;
  in.uid = in.gid = kAgentId;
  EXPECT_EQ(client.setattr(file, in).error, 0);
  in.uid = 0;
  EXPECT_EQ(client.setattr(file, in).error, EPERM);
}

TEST(Dispatcher, NamesAreBytes) {
  FuseClient client;
  const std::string longest(255, '\xff');
  EXPECT_EQ(client.create(client.ws0(), longest).error, 0);
  EXPECT_TRUE(std::filesystem::exists(client.host(longest)));
  EXPECT_EQ(client.create(client.ws0(), longest + "x").error, ENAMETOOLONG);
}

TEST(Dispatcher, UserAttributesOnly) {
  FuseClient client;
  const auto file = client.create(client.ws0(), "f").node();
  const auto set = [&](std::string_view name, std::string_view value) {
    const std::uint32_t in[2] = {static_cast<std::uint32_t>(value.size()), 0};
    return client.ask(FUSE_SETXATTR, file, bytes_of(in) + name_of(name) + std::string(value)).error;
  };
  EXPECT_EQ(set("user.key", "value"), 0);
  EXPECT_EQ(set("security.capability", "x"), EOPNOTSUPP);
  EXPECT_EQ(set("system.posix_acl_access", "x"), EOPNOTSUPP);
  EXPECT_EQ(set("trusted.x", "x"), EOPNOTSUPP);
  EXPECT_EQ(client.ask(FUSE_GETXATTR, file, bytes_of(fuse_getxattr_in{100, 0}) + name_of("user.key")).payload, "value");
  EXPECT_EQ(client.ask(FUSE_GETXATTR, file, bytes_of(fuse_getxattr_in{0, 0}) + name_of("user.key"))
                .as<fuse_getxattr_out>()
                .size,
            5U);
  EXPECT_EQ(client.ask(FUSE_GETXATTR, file, bytes_of(fuse_getxattr_in{2, 0}) + name_of("user.key")).error, ERANGE);
  EXPECT_EQ(client.ask(FUSE_LISTXATTR, file, bytes_of(fuse_getxattr_in{100, 0})).payload, name_of("user.key"));
  EXPECT_EQ(client.ask(FUSE_REMOVEXATTR, file, name_of("user.key")).error, 0);
}

TEST(Dispatcher, DestroyReleasesEverythingAndTheNextSessionStartsAnew) {
  FuseClient client;
  const auto file = client.create(client.ws0(), "f").node();
  EXPECT_EQ(client.ask(FUSE_DESTROY, 0, "").error, 0);
  EXPECT_EQ(client.dispatcher().open_files(), 0U);
  EXPECT_EQ(client.getattr(file).error, EIO);
}

}  // namespace
}  // namespace sbx::files
