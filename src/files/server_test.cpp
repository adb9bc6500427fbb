// The program itself, locked down, over a socket as the keeper gives it one.
#include <poll.h>
#include <sys/socket.h>

#include "base/command.h"
#include "files/fuse_client_test_support.h"
#include "wire/resync.h"

namespace sbx::files {
namespace {

class Server : public testing::Test {
 protected:
  void SetUp() override {
    ASSERT_TRUE(write_file_atomically(folder_.path() / "f", "served", 0644));
    int ends[2];
    ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    port_.reset(ends[0]);
    UniqueFd theirs(ends[1]);
    ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    control_.reset(ends[0]);
    UniqueFd their_control(ends[1]);
    const auto journal = *open_file(journal_folder_.path() / "journal", O_RDWR | O_CREAT);
    const auto before = *open_file(journal_folder_.path() / "before", O_RDWR | O_CREAT);
    auto child = Command({SBX_FILES_PROGRAM, "--port-fd", std::to_string(theirs.get()), "--control-fd",
                          std::to_string(their_control.get()), "--cache-ms", "600000", "--workspace",
                          "0:" + folder_.path().string(), "--protect", "kept", "--journal-fd",
                          std::to_string(journal.get()), "--before-fd", std::to_string(before.get())})
                     .keep_fd(journal.get())
                     .keep_fd(before.get())
                     .keep_fd(theirs.get())
                     .keep_fd(their_control.get())
                     // Its jail does not let it trace itself, which is how LeakSanitizer looks for leaks.
                     .environment({"ASAN_OPTIONS=detect_leaks=0"})
                     .start();
    ASSERT_TRUE(child) << child.error().describe();
    child_ = std::move(*child);
    theirs.reset();
    const auto syn = receive(wire::kResyncMagic.size() + wire::kNonceSize);
    ASSERT_TRUE(syn.starts_with(wire::kResyncMagic));
    send("left over from an earlier session" + std::string(wire::kResyncEchoMagic) +
         syn.substr(wire::kResyncMagic.size()));
  }

  void send(std::string_view bytes) { ASSERT_TRUE(write_all(port_.get(), bytes)); }
  std::string receive(std::size_t size) {
    std::string bytes;
    while (bytes.size() < size) {
      pollfd waiting{port_.get(), POLLIN, 0};
      if (::poll(&waiting, 1, 60'000) != 1) break;
      char piece[4096];
      const ssize_t got = ::read(port_.get(), piece, std::min(sizeof(piece), size - bytes.size()));
      if (got <= 0) break;
      bytes.append(piece, static_cast<std::size_t>(got));
    }
    return bytes;
  }
  Answer ask(std::uint32_t opcode, NodeId node, std::string_view body) {
    send(message(opcode, node, body));
    while (true) {
      const auto head = receive(sizeof(fuse_out_header));
      fuse_out_header header{};
      if (head.size() != sizeof(header)) return {ENOTCONN, ""};
      std::memcpy(&header, head.data(), sizeof(header));
      auto payload = receive(header.len - sizeof(header));
      if (header.unique != 0) return {-header.error, std::move(payload)};  // else a notification
    }
  }
  void init() {
    fuse_init_in in{};
    in.major = FUSE_KERNEL_VERSION;
    in.minor = FUSE_KERNEL_MINOR_VERSION;
    ASSERT_EQ(ask(FUSE_INIT, 0, bytes_of(in)).error, 0);
  }
  int exit_code() {
    const auto status = child_.wait();
    return status ? status->code + 1000 * status->signal : -1;
  }

  TemporaryFolder folder_ = *TemporaryFolder::make("sbx-files-server");
  TemporaryFolder journal_folder_ = *TemporaryFolder::make("sbx-files-journal");
  UniqueFd port_, control_;
  Subprocess child_;
};

TEST_F(Server, ServesLockedDownAndEndsWithThePort) {
  init();
  const auto root = ask(FUSE_LOOKUP, 1, name_of("0")).node();
  const auto file = ask(FUSE_LOOKUP, root, name_of("f")).node();
  fuse_read_in in{};
  in.size = 100;
  EXPECT_EQ(ask(FUSE_READ, file, bytes_of(in)).payload, "served");
  const auto status = *read_file("/proc/" + std::to_string(child_.pid()) + "/status");
  for (const auto* line : {"CapEff:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"}) {
    EXPECT_NE(status.find(line), std::string::npos) << line << "\n" << status;
  }
  port_.reset();
  EXPECT_EQ(exit_code(), 0);
}

// Every operation's system calls must be on the list.
TEST_F(Server, TheFilterLetsEveryOperationThrough) {
  init();
  const auto root = ask(FUSE_LOOKUP, 1, name_of("0")).node();
  const auto folder = ask(FUSE_MKDIR, root, bytes_of(fuse_mkdir_in{0755, 0}) + name_of("d")).node();
  fuse_create_in create{};
  create.flags = O_RDWR;
  create.mode = 0644;
  const auto made = ask(FUSE_CREATE, root, bytes_of(create) + name_of("new"));
  ASSERT_EQ(made.error, 0);
  const auto file = made.node();
  fuse_write_in write{};
  write.size = 3;
  EXPECT_EQ(ask(FUSE_WRITE, file, bytes_of(write) + "abc").error, 0);
  write.flags = O_APPEND;
  EXPECT_EQ(ask(FUSE_WRITE, file, bytes_of(write) + "def").error, 0);
  for (const std::uint32_t flags : {0, 1})
    EXPECT_EQ(ask(FUSE_FSYNC, file, bytes_of(fuse_fsync_in{0, flags, 0})).error, 0);
  EXPECT_EQ(ask(FUSE_FALLOCATE, file, bytes_of(fuse_fallocate_in{0, 0, 8192, 0, 0})).error, 0);
  EXPECT_EQ(ask(FUSE_LSEEK, file, bytes_of(fuse_lseek_in{0, 0, SEEK_HOLE, 0})).error, 0);
  EXPECT_EQ(ask(FUSE_COPY_FILE_RANGE, file, bytes_of(fuse_copy_file_range_in{0, 0, file, 0, 100, 3, 0})).error, 0);
  fuse_setattr_in set{};
  set.valid = FATTR_SIZE | FATTR_MODE | FATTR_MTIME | FATTR_ATIME | FATTR_ATIME_NOW;
  set.mode = 0755;
  EXPECT_EQ(ask(FUSE_SETATTR, file, bytes_of(set)).error, 0);
  set.valid = FATTR_SIZE | FATTR_FH;
  EXPECT_EQ(ask(FUSE_SETATTR, file, bytes_of(set)).error, 0);
  const std::uint32_t xattr[2] = {1, 0};
  EXPECT_EQ(ask(FUSE_SETXATTR, file, bytes_of(xattr) + name_of("user.x") + "v").error, 0);
  EXPECT_EQ(ask(FUSE_GETXATTR, file, bytes_of(fuse_getxattr_in{10, 0}) + name_of("user.x")).payload, "v");
  EXPECT_EQ(ask(FUSE_LISTXATTR, file, bytes_of(fuse_getxattr_in{100, 0})).error, 0);
  EXPECT_EQ(ask(FUSE_REMOVEXATTR, file, name_of("user.x")).error, 0);
  const auto link = ask(FUSE_SYMLINK, root, name_of("l") + name_of("t")).node();
  EXPECT_EQ(ask(FUSE_READLINK, link, "").payload, "t");
  EXPECT_EQ(ask(FUSE_LINK, root, bytes_of(fuse_link_in{file}) + name_of("hard")).error, 0);
  for (const std::uint32_t type : {S_IFREG, S_IFIFO, S_IFSOCK}) {
    EXPECT_EQ(ask(FUSE_MKNOD, root, bytes_of(fuse_mknod_in{type | 0644, 0, 0, 0}) + name_of("n" + std::to_string(type)))
                  .error,
              0);
  }
  EXPECT_EQ(ask(FUSE_RENAME, root, bytes_of(fuse_rename_in{folder}) + name_of("new") + name_of("moved")).error, 0);
  EXPECT_EQ(ask(FUSE_RENAME2, root,
                bytes_of(fuse_rename2_in{folder, RENAME_EXCHANGE, 0}) + name_of("hard") + name_of("moved"))
                .error,
            0);
  EXPECT_EQ(ask(FUSE_STATFS, root, "").error, 0);
  EXPECT_EQ(ask(FUSE_GETATTR, file, bytes_of(fuse_getattr_in{})).error, 0);
  fuse_read_in list{};
  list.size = 4096;
  EXPECT_EQ(ask(FUSE_READDIR, folder, bytes_of(list)).error, 0);
  list.offset = 1;
  EXPECT_EQ(ask(FUSE_READDIR, folder, bytes_of(list)).error, 0);
  EXPECT_EQ(ask(FUSE_READDIRPLUS, folder, bytes_of(list)).error, 0);
  EXPECT_EQ(ask(FUSE_FSYNCDIR, folder, bytes_of(fuse_fsync_in{})).error, 0);
  // Large ones go to the threads.
  write.flags = 0;
  write.size = 200'000;
  EXPECT_EQ(ask(FUSE_WRITE, file, bytes_of(write) + std::string(write.size, 'x')).error, 0);
  fuse_release_in release{};
  EXPECT_EQ(ask(FUSE_RELEASE, file, bytes_of(release)).error, 0);
  // What is in a folder is looked at before it is moved to a place that is protected.
  const auto other = ask(FUSE_MKDIR, root, bytes_of(fuse_mkdir_in{0755, 0}) + name_of("e")).node();
  EXPECT_EQ(ask(FUSE_MKDIR, other, bytes_of(fuse_mkdir_in{0755, 0}) + name_of("inner")).error, 0);
  EXPECT_EQ(ask(FUSE_RENAME, root, bytes_of(fuse_rename_in{root}) + name_of("e") + name_of("kept")).error, 0);
  EXPECT_EQ(ask(FUSE_UNLINK, folder, name_of("moved")).error, 0);
  EXPECT_EQ(ask(FUSE_RMDIR, root, name_of("d")).error, 0);
  EXPECT_EQ(ask(FUSE_DESTROY, 0, "").error, 0);
}

TEST_F(Server, ABarrierCountsWhatWasSentBeforeIt) {
  init();
  const auto root = ask(FUSE_LOOKUP, 1, name_of("0")).node();
  const auto file = ask(FUSE_LOOKUP, root, name_of("f"));
  EXPECT_GT(file.as<fuse_entry_out>().attr_valid, 0U);
  const auto barrier = [&] {
    EXPECT_TRUE(write_all(control_.get(), "b"));
    pollfd waiting{control_.get(), POLLIN, 0};
    EXPECT_EQ(::poll(&waiting, 1, 60'000), 1);
    std::uint64_t count = ~0ULL;
    EXPECT_EQ(::read(control_.get(), &count, sizeof(count)), static_cast<ssize_t>(sizeof(count)));
    return count;
  };
  EXPECT_EQ(barrier(), 0U);
  {
    UniqueFd host(::open((folder_.path() / "f").c_str(), O_WRONLY | O_APPEND));
    ASSERT_TRUE(write_all(host.get(), "more"));
  }
  const auto count = barrier();
  ASSERT_GT(count, 0U);
  bool told = false;
  for (std::uint64_t i = 0; i < count; ++i) {
    fuse_out_header header{};
    const auto head = receive(sizeof(header));
    ASSERT_EQ(head.size(), sizeof(header));
    std::memcpy(&header, head.data(), sizeof(header));
    EXPECT_EQ(header.unique, 0U);
    const Answer body{0, receive(header.len - sizeof(header))};
    told |= header.error == FUSE_NOTIFY_INVAL_INODE && body.as<fuse_notify_inval_inode_out>().ino == file.node();
  }
  EXPECT_TRUE(told);
}

TEST_F(Server, BrokenFramingEndsTheSession) {
  init();
  send(std::string("\xff\xff\xff\x7f", 4) + std::string(100, 'x'));
  EXPECT_EQ(exit_code(), 1);
}

}  // namespace
}  // namespace sbx::files
