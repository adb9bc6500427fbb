// What a hostile guest kernel may send.
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <thread>

#include "files/fuse_client_test_support.h"

namespace sbx::files {
namespace {

TEST(Attack, NamesThatAreNotOneComponentAreRefusedEverywhere) {
  FuseClient client;
  ASSERT_TRUE(write_file_atomically(client.folder() / "outside/secret", "secret"));
  const auto file = client.create(client.ws0(), "f").node();
  for (const std::string_view name : {"..", ".", "", "../outside", "/etc/passwd", "a/b", "f/", "../ws1/x"}) {
    EXPECT_EQ(client.lookup(client.ws0(), name).error, EINVAL) << name;
    EXPECT_EQ(client.lookup(FUSE_ROOT_ID, name).error, EINVAL) << name;
    EXPECT_EQ(client.create(client.ws0(), name).error, EINVAL) << name;
    EXPECT_EQ(client.mkdir(client.ws0(), name).error, EINVAL) << name;
    EXPECT_EQ(client.mknod(client.ws0(), name, S_IFREG).error, EINVAL) << name;
    EXPECT_EQ(client.link(file, client.ws0(), name).error, EINVAL) << name;
    EXPECT_EQ(client.rename(client.ws0(), name, client.ws0(), "x").error, EINVAL) << name;
    EXPECT_EQ(client.rename(client.ws0(), "f", client.ws0(), name).error, EINVAL) << name;
    EXPECT_EQ(client.ask(FUSE_UNLINK, client.ws0(), name_of(name)).error, EINVAL) << name;
    EXPECT_EQ(client.ask(FUSE_RMDIR, client.ws0(), name_of(name)).error, EINVAL) << name;
    EXPECT_EQ(client.ask(FUSE_SYMLINK, client.ws0(), name_of(name) + name_of("t")).error, EINVAL) << name;
  }
  // Not terminated, or with something after the terminator.
  EXPECT_EQ(client.ask(FUSE_LOOKUP, client.ws0(), "ff").error, EINVAL);
  EXPECT_EQ(client.ask(FUSE_LOOKUP, client.ws0(), std::string_view("f\0/etc", 6)).error, EINVAL);
}

TEST(Attack, SymlinksAreNeverFollowed) {
  FuseClient client;
  ASSERT_TRUE(write_file_atomically(client.folder() / "outside/secret", "secret"));
  for (const auto& text :
       {(client.folder() / "outside").string(), std::string("../outside"), std::string("/proc/self/root")}) {
    const auto made = client.ask(FUSE_SYMLINK, client.ws0(), name_of("link") + name_of(text));
    ASSERT_EQ(made.error, 0);
    EXPECT_EQ(client.ask(FUSE_READLINK, made.node(), "").payload, text);
    EXPECT_EQ(client.lookup(made.node(), "secret").error, ENOTDIR);
    EXPECT_EQ(client.create(made.node(), "evil").error, ENOTDIR);
    EXPECT_EQ(client.list(made.node()).error, ENOTDIR);
    EXPECT_EQ(client.open(made.node(), O_RDONLY).error, ENXIO);
    EXPECT_EQ(client.create(client.ws0(), "link", 0644, O_RDWR | O_TRUNC).error, ENXIO);
    EXPECT_EQ(client.ask(FUSE_UNLINK, client.ws0(), name_of("link")).error, 0);
  }
  EXPECT_FALSE(std::filesystem::exists(client.folder() / "outside/evil"));
}

TEST(Attack, ASymlinkToAFileOutsideCannotChangeIt) {
  FuseClient client;
  const auto outside = client.folder() / "outside/victim";
  ASSERT_TRUE(write_file_atomically(outside, "untouched", 0600));
  const auto link = client.ask(FUSE_SYMLINK, client.ws0(), name_of("l") + name_of(outside.string())).node();
  fuse_setattr_in in{};
  in.valid = FATTR_SIZE;
  EXPECT_NE(client.setattr(link, in).error, 0);
  in.valid = FATTR_MODE;
  in.mode = 0777;
  EXPECT_NE(client.setattr(link, in).error, 0);
  in.valid = FATTR_MTIME;
  in.mtime = 1;
  EXPECT_EQ(client.setattr(link, in).error, 0);  // the link's own
  EXPECT_EQ(client.link(link, client.ws0(), "m").error, 0);
  EXPECT_TRUE(std::filesystem::is_symlink(client.host("m")));
  struct stat status {};
  ASSERT_EQ(::stat(outside.c_str(), &status), 0);
  EXPECT_EQ(status.st_size, 9);
  EXPECT_EQ(status.st_mode & 07777U, 0600U);
  EXPECT_EQ(status.st_nlink, 1U);
  EXPECT_NE(status.st_mtime, 1);
}

TEST(Attack, AFolderThatBecomesASymlinkDoesNotLeadOutside) {
  FuseClient client(Dispatcher::Limits{.nodes = {.nodes = 1000, .descriptors = 1}, .cache = {}});
  ASSERT_TRUE(write_file_atomically(client.folder() / "outside/secret", "secret"));
  const auto folder = client.mkdir(client.ws0(), "d").node();
  const auto inner = client.mkdir(folder, "secret").node();
  client.mkdir(client.ws0(), "other");  // evicts the others' descriptors
  client.mkdir(client.ws0(), "other2");
  std::filesystem::rename(client.host("d"), client.host("away"));
  std::filesystem::create_symlink(client.folder() / "outside", client.host("d"));
  EXPECT_EQ(client.lookup(folder, "secret").error, ESTALE);
  EXPECT_EQ(client.getattr(inner).error, ESTALE);
}

TEST(Attack, AFolderThatIsMovedOutOfTheWorkspaceIsOutOfReach) {
  FuseClient client;
  const auto folder = client.mkdir(client.ws0(), "d").node();
  const auto inner = client.mkdir(folder, "e").node();
  const auto file = client.create(folder, "f").node();
  std::filesystem::rename(client.host("d"), client.folder() / "outside/d");
  EXPECT_EQ(client.lookup(folder, "e").error, ESTALE);
  EXPECT_EQ(client.create(inner, "g").error, ESTALE);
  EXPECT_EQ(client.open(file, O_RDONLY).error, ESTALE);
  EXPECT_EQ(client.rename(folder, "f", client.ws0(), "f").error, ESTALE);
}

// A folder and a symlink to outside change places as fast as they can, by renames on the host, while the guest walks.
TEST(Attack, ARenameRaceNeverLeadsOutside) {
  FuseClient client(Dispatcher::Limits{.nodes = {.nodes = 1000, .descriptors = 1}, .cache = {}});
  std::filesystem::create_directory(client.host("d"));
  std::filesystem::create_symlink(client.folder() / "outside", client.host("l"));
  ASSERT_TRUE(write_file_atomically(client.host("d/f"), "inside"));
  ASSERT_TRUE(write_file_atomically(client.folder() / "outside/f", "SECRET"));
  std::jthread swapper([a = client.host("d"), b = client.host("l")](const std::stop_token& stop) {
    while (!stop.stop_requested()) ::renameat2(AT_FDCWD, a.c_str(), AT_FDCWD, b.c_str(), RENAME_EXCHANGE);
  });
  int walked = 0;
  for (int i = 0; i < 20000; ++i) {
    const auto folder = client.lookup(client.ws0(), "d");
    if (folder.error != 0) continue;
    const auto file = client.lookup(folder.node(), "f");
    if (file.error != 0) continue;
    const auto read = client.read(file.node(), 0, 100);
    if (read.error != 0) continue;
    ASSERT_EQ(read.payload, "inside");
    ++walked;
  }
  EXPECT_GT(walked, 0);
}

TEST(Attack, NodesAndHandlesThatWereNeverGivenOrAreGoneFindNothing) {
  FuseClient client;
  constexpr NodeId kGeneration = NodeId{1} << 32U;
  for (const NodeId id :
       {NodeId{0}, NodeId{4}, NodeId{100}, ~NodeId{0}, client.ws0() | kGeneration, NodeId{1} | kGeneration}) {
    EXPECT_EQ(client.getattr(id).error, ESTALE) << id;
    EXPECT_EQ(client.lookup(id, "x").error, ESTALE) << id;
    EXPECT_EQ(client.list(id).error, ESTALE) << id;
  }
  const auto created = client.create(client.ws0(), "f");
  EXPECT_EQ(client.list(created.node()).error, ENOTDIR);
  EXPECT_EQ(client.read(client.ws0(), 0, 1).error, EISDIR);
  client.forget(created.node(), 1);
  EXPECT_EQ(client.getattr(created.node()).error, ESTALE);
  EXPECT_NE(client.lookup(client.ws0(), "f").node(), created.node());  // same slot, next generation
}

TEST(Attack, ForgettingTooMuchIsHarmless) {
  FuseClient client;
  const auto folder = client.mkdir(client.ws0(), "d").node();
  const auto file = client.create(folder, "f");
  client.forget(folder, ~0ULL);
  client.forget(file.node(), ~0ULL);
  client.forget(client.ws0(), ~0ULL);
  client.forget(FUSE_ROOT_ID, ~0ULL);
  EXPECT_EQ(client.write(file.node(), 0, "x").error, ESTALE);
  EXPECT_EQ(client.getattr(file.node()).error, ESTALE);
  EXPECT_EQ(client.getattr(folder).error, ESTALE);
  EXPECT_EQ(client.getattr(client.ws0()).error, 0);
}

TEST(Attack, LengthsThatLieAreRefused) {
  FuseClient client;
  const auto created = client.create(client.ws0(), "f");
  fuse_write_in write{};
  write.size = 1000;
  EXPECT_EQ(client.ask(FUSE_WRITE, created.node(), bytes_of(write) + "short").error, EINVAL);
  write.size = ~0U;
  EXPECT_EQ(client.ask(FUSE_WRITE, created.node(), bytes_of(write) + "short").error, EINVAL);
  EXPECT_EQ(client.write(created.node(), ~0ULL, "x").error, EINVAL);
  EXPECT_EQ(client.read(created.node(), 0, ~0U).error, EINVAL);
  EXPECT_EQ(client.read(created.node(), ~0ULL, 1).error, EINVAL);
  const std::uint32_t setxattr[2] = {60000, 0};
  EXPECT_EQ(client.ask(FUSE_SETXATTR, created.node(), bytes_of(setxattr) + name_of("user.x") + "v").error, EINVAL);
  // A count of forgets without the entries.
  const auto batch = client.dispatcher().handle(message(FUSE_BATCH_FORGET, 0, bytes_of(fuse_batch_forget_in{~0U, 0})));
  ASSERT_TRUE(batch);
  EXPECT_TRUE(batch->empty());
  // The framing itself: the session ends.
  auto forged = message(FUSE_GETATTR, 1, bytes_of(fuse_getattr_in{}));
  forged[0] = 41;
  EXPECT_FALSE(client.dispatcher().handle(forged));
  EXPECT_FALSE(client.dispatcher().handle("short"));
  EXPECT_FALSE(client.dispatcher().handle(std::string(kMaxMessage + 1, 'x')));
}

TEST(Attack, EveryOpcodeWithEveryShortBodyGetsAnAnswer) {
  FuseClient client;
  for (std::uint32_t opcode = 0; opcode < 60; ++opcode) {
    if (opcode == FUSE_DESTROY) continue;
    for (std::size_t size = 0; size < 80; ++size) {
      for (const NodeId node : {NodeId{1}, client.ws0(), NodeId{77}}) {
        const auto reply = client.dispatcher().handle(message(opcode, node, std::string(size, '\x41')));
        ASSERT_TRUE(reply) << opcode << " " << size;
      }
    }
  }
  EXPECT_EQ(client.dispatcher().handle(message(FUSE_INIT, 0, "x"))->size(), sizeof(fuse_out_header));
  EXPECT_EQ(client.ask(4096, 1, "").error, ENOSYS);
  EXPECT_EQ(client.ask(~0U, 1, "").error, ENOSYS);
}

TEST(Attack, NothingIsServedBeforeInit) {
  const auto folder = *TemporaryFolder::make("sbx-files-test");
  std::vector<Workspace> workspaces;
  workspaces.push_back(*open_workspace({0, folder.path().string(), false}));
  Dispatcher dispatcher(std::move(workspaces), {});
  const auto reply = dispatcher.handle(message(FUSE_LOOKUP, 1, name_of("0")));
  ASSERT_TRUE(reply);
  fuse_out_header header{};
  std::memcpy(&header, reply->data(), sizeof(header));
  EXPECT_EQ(header.error, -EIO);
}

TEST(Attack, NoDeviceNodesAndNoSetuidBits) {
  FuseClient client;
  EXPECT_EQ(client.mknod(client.ws0(), "null", S_IFCHR | 0666).error, EPERM);
  EXPECT_EQ(client.mknod(client.ws0(), "disk", S_IFBLK | 0666).error, EPERM);
  EXPECT_EQ(client.rename(client.ws0(), "a", client.ws0(), "b", RENAME_WHITEOUT).error, EINVAL);
  const auto created = client.create(client.ws0(), "f", 06777).node();
  EXPECT_EQ(client.mknod(client.ws0(), "g", S_IFREG | 06777).error, 0);
  EXPECT_EQ(client.mkdir(client.ws0(), "d", 06777).error, 0);
  fuse_setattr_in in{};
  in.valid = FATTR_MODE;
  in.mode = 06755;
  EXPECT_EQ(client.setattr(created, in).error, 0);
  for (const auto* name : {"f", "g", "d"}) {
    struct stat status {};
    ASSERT_EQ(::stat(client.host(name).c_str(), &status), 0);
    EXPECT_EQ(status.st_mode & 06000U, 0U) << name;
  }
}

TEST(Attack, FifosSocketsAndDevicesOfTheHostAreNotOpened) {
  FuseClient client;
  ASSERT_EQ(::mkfifo(client.host("fifo").c_str(), 0666), 0);
  EXPECT_EQ(client.open(client.lookup(client.ws0(), "fifo").node(), O_RDONLY).error, ENXIO);
  EXPECT_EQ(client.create(client.ws0(), "fifo", 0644, O_WRONLY).error, ENXIO);
  EXPECT_EQ(client.mknod(client.ws0(), "sock", S_IFSOCK | 0666).error, 0);
  EXPECT_EQ(client.open(client.lookup(client.ws0(), "sock").node(), O_RDWR).error, ENXIO);
  if (::geteuid() == 0 && ::mknod(client.host("null").c_str(), S_IFCHR | 0666, 0x103) == 0) {
    const auto null = client.lookup(client.ws0(), "null");
    EXPECT_EQ(null.as<fuse_entry_out>().attr.rdev, 0U);
    EXPECT_EQ(client.open(null.node(), O_RDWR).error, ENXIO);
  }
}

TEST(Attack, AReadOnlyWorkspaceCannotBeChangedByAnyOperation) {
  FuseClient client;
  const auto path = client.folder() / "ws1/f";
  ASSERT_TRUE(write_file_atomically(path, "fixed", 0666));
  const auto file = client.lookup(client.ws1(), "f").node();
  const auto own = client.create(client.ws0(), "own").node();
  EXPECT_EQ(client.open(file, O_RDWR).error, EROFS);
  EXPECT_EQ(client.open(file, O_RDONLY | O_TRUNC).error, EROFS);
  EXPECT_EQ(client.create(client.ws1(), "g").error, EROFS);
  EXPECT_EQ(client.mkdir(client.ws1(), "d").error, EROFS);
  EXPECT_EQ(client.mknod(client.ws1(), "n", S_IFREG).error, EROFS);
  EXPECT_EQ(client.link(file, client.ws1(), "h").error, EROFS);
  EXPECT_NE(client.link(file, client.ws0(), "h").error, 0);
  EXPECT_EQ(client.link(own, client.ws1(), "h").error, EROFS);
  EXPECT_EQ(client.rename(client.ws1(), "f", client.ws1(), "g").error, EROFS);
  EXPECT_EQ(client.rename(client.ws1(), "f", client.ws0(), "g").error, EROFS);
  EXPECT_EQ(client.ask(FUSE_UNLINK, client.ws1(), name_of("f")).error, EROFS);
  EXPECT_EQ(client.ask(FUSE_REMOVEXATTR, file, name_of("user.x")).error, EROFS);
  fuse_setattr_in in{};
  for (const std::uint32_t valid : {FATTR_MODE, FATTR_SIZE, FATTR_MTIME, FATTR_UID}) {
    in.valid = valid;
    EXPECT_EQ(client.setattr(file, in).error, EROFS);
  }
  EXPECT_EQ(client.read(file, 0, 100).payload, "fixed");
  EXPECT_EQ(client.write(file, 0, "x").error, EROFS);
  EXPECT_EQ(client.ask(FUSE_FALLOCATE, file, bytes_of(fuse_fallocate_in{0, 0, 100, 0, 0})).error, EROFS);
  EXPECT_EQ(client.ask(FUSE_COPY_FILE_RANGE, own, bytes_of(fuse_copy_file_range_in{0, 0, file, 0, 0, 1, 0})).error,
            EROFS);
  EXPECT_EQ(*read_file(path), "fixed");
}

TEST(Attack, LinksAndRenamesAcrossWorkspacesAreRefused) {
  const auto folder = *TemporaryFolder::make("sbx-files-test");
  std::vector<Workspace> workspaces;
  for (unsigned i = 0; i < 2; ++i) {
    const auto path = folder.path() / std::to_string(i);
    std::filesystem::create_directory(path);
    workspaces.push_back(*open_workspace({i, path.string(), false}));
  }
  Dispatcher dispatcher(std::move(workspaces), {});
  const auto ask = [&](std::uint32_t opcode, NodeId node, std::string_view body) {
    const auto reply = *dispatcher.handle(message(opcode, node, body));
    fuse_out_header header{};
    std::memcpy(&header, reply.data(), sizeof(header));
    return Answer{-header.error, std::string(reply.substr(sizeof(header)))};
  };
  fuse_init_in init{};
  init.major = 7;
  init.minor = 38;
  ask(FUSE_INIT, 0, bytes_of(init));
  const auto a = ask(FUSE_LOOKUP, 1, name_of("0")).node();
  const auto b = ask(FUSE_LOOKUP, 1, name_of("1")).node();
  const auto file = ask(FUSE_MKNOD, a, bytes_of(fuse_mknod_in{S_IFREG | 0644, 0, 0, 0}) + name_of("f")).node();
  EXPECT_EQ(ask(FUSE_RENAME, a, bytes_of(fuse_rename_in{b}) + name_of("f") + name_of("f")).error, EXDEV);
  EXPECT_EQ(ask(FUSE_LINK, b, bytes_of(fuse_link_in{file}) + name_of("f")).error, EXDEV);
}

TEST(Attack, OpenFilesAndNodesAreBounded) {
  FuseClient client(Dispatcher::Limits{.nodes = {.nodes = 40, .descriptors = 8}, .cache = {}, .open_files = 4});
  int made = 0;
  while (made < 100 && client.create(client.ws0(), "f" + std::to_string(made)).error == 0) ++made;
  EXPECT_EQ(made, 38);
  EXPECT_EQ(client.mkdir(client.ws0(), "d").error, ENFILE);
  EXPECT_LE(client.dispatcher().nodes().descriptors(), 8U);
  EXPECT_EQ(client.dispatcher().open_files(), 4U);
}

// The guest does not say when it closes a file that it has made, and so must be able to make any number of them.
TEST(Attack, CreatingFilesHoldsNothing) {
  FuseClient client;
  for (int i = 0; i < 6000; ++i) {
    const auto name = std::to_string(i);
    const auto file = client.create(client.ws0(), name, 0444);
    ASSERT_EQ(file.error, 0) << i;
    ASSERT_EQ(client.write(file.node(), 0, "x").error, 0);  // although the mode says no
  }
  EXPECT_LE(client.dispatcher().open_files(), 512U);
}

}  // namespace
}  // namespace sbx::files
