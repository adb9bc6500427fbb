// A FUSE kernel for tests: builds requests for a Dispatcher over temporary folders and takes replies apart.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/fuse.h>
#include <sys/stat.h>

#include <cstring>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

#include "base/file.h"
#include "files/dispatcher.h"

namespace sbx::files {

struct Answer {
  int error = 0;  // positive errno
  std::string payload;

  template <typename T>
  T as(std::size_t offset = 0) const {
    T value{};
    EXPECT_GE(payload.size(), offset + sizeof(T));
    if (payload.size() >= offset + sizeof(T)) std::memcpy(&value, payload.data() + offset, sizeof(T));
    return value;
  }
  NodeId node() const { return as<fuse_entry_out>().nodeid; }
};

template <typename T>
std::string bytes_of(const T& value) {
  return {reinterpret_cast<const char*>(&value), sizeof(T)};
}

inline std::string name_of(std::string_view name) { return std::string(name) + '\0'; }

inline std::string message(std::uint32_t opcode, NodeId node, std::string_view body, std::uint64_t unique = 1) {
  fuse_in_header header{};
  header.len = static_cast<std::uint32_t>(sizeof(header) + body.size());
  header.opcode = opcode;
  header.unique = unique;
  header.nodeid = node;
  header.uid = header.gid = kAgentId;
  return bytes_of(header) + std::string(body);
}

class FuseClient {
 public:
  // Workspaces "0" (read-write) and "1" (read-only), under folder() / "ws0" and "ws1"; folder() / "outside" is not
  // served.
  explicit FuseClient(Dispatcher::Limits limits = {}, std::uint32_t minor = FUSE_KERNEL_MINOR_VERSION, Rules rules = {})
      : folder_(*TemporaryFolder::make("sbx-files-test")) {
    for (const auto* name : {"ws0", "ws1", "outside"}) std::filesystem::create_directory(folder_.path() / name);
    std::vector<Workspace> workspaces;
    workspaces.push_back(*open_workspace({0, (folder_.path() / "ws0").string(), false}));
    workspaces.push_back(*open_workspace({1, (folder_.path() / "ws1").string(), true}));
    const auto own = [this](const char* name) { return *open_file(folder_.path() / name, O_RDWR | O_CREAT, 0600); };
    dispatcher_.emplace(std::move(workspaces), limits, *HostWatch::make(), std::move(rules),
                        Journal(own("journal"), own("before")));
    fuse_init_in init{};
    init.major = FUSE_KERNEL_VERSION;
    init.minor = minor;
    init.max_readahead = 1U << 20U;
    init.flags = ~0U;
    init_ = ask(FUSE_INIT, 0, bytes_of(init));
    ws0_ = lookup(FUSE_ROOT_ID, "0").node();
    ws1_ = lookup(FUSE_ROOT_ID, "1").node();
  }

  std::filesystem::path folder() const { return folder_.path(); }
  std::filesystem::path host(std::string_view name) const { return folder_.path() / "ws0" / name; }
  Dispatcher& dispatcher() { return *dispatcher_; }
  NodeId ws0() const { return ws0_; }
  NodeId ws1() const { return ws1_; }
  const Answer& init() const { return init_; }

  Answer ask(std::uint32_t opcode, NodeId node, std::string_view body) {
    const auto reply = dispatcher_->handle(message(opcode, node, body, ++unique_));
    EXPECT_TRUE(reply) << (reply ? "" : reply.error().describe());
    if (!reply) return {EIO, ""};
    fuse_out_header header{};
    EXPECT_GE(reply->size(), sizeof(header)) << "no reply to opcode " << opcode;
    if (reply->size() < sizeof(header)) return {EIO, ""};
    std::memcpy(&header, reply->data(), sizeof(header));
    EXPECT_EQ(header.len, reply->size());
    EXPECT_EQ(header.unique, unique_);
    return {-header.error, std::string(reply->substr(sizeof(header)))};
  }
  Answer lookup(NodeId parent, std::string_view name) { return ask(FUSE_LOOKUP, parent, name_of(name)); }
  Answer create(NodeId parent, std::string_view name, std::uint32_t mode = 0644, std::uint32_t flags = O_RDWR) {
    fuse_create_in in{};
    in.flags = flags | O_CREAT;
    in.mode = S_IFREG | mode;
    return ask(FUSE_CREATE, parent, bytes_of(in) + name_of(name));
  }
  Answer mkdir(NodeId parent, std::string_view name, std::uint32_t mode = 0755) {
    return ask(FUSE_MKDIR, parent, bytes_of(fuse_mkdir_in{mode, 0}) + name_of(name));
  }
  Answer mknod(NodeId parent, std::string_view name, std::uint32_t mode) {
    return ask(FUSE_MKNOD, parent, bytes_of(fuse_mknod_in{mode, 0x101, 0, 0}) + name_of(name));
  }
  // What is left of open(2) on this side: whether the file can be truncated, written or read by its node.
  Answer open(NodeId node, std::uint32_t flags) {
    if ((flags & O_TRUNC) != 0) {
      fuse_setattr_in in{};
      in.valid = FATTR_SIZE;
      return setattr(node, in);
    }
    return (flags & O_ACCMODE) == O_RDONLY ? read(node, 0, 1) : write(node, 0, "");
  }
  Answer list(NodeId node, std::uint64_t offset = 0, std::uint32_t size = 4096) {
    return read(node, offset, size, FUSE_READDIR);
  }
  Answer write(NodeId node, std::uint64_t offset, std::string_view data, std::uint32_t flags = 0) {
    fuse_write_in in{};
    in.offset = offset;
    in.size = static_cast<std::uint32_t>(data.size());
    in.flags = flags;
    return ask(FUSE_WRITE, node, bytes_of(in) + std::string(data));
  }
  Answer read(NodeId node, std::uint64_t offset, std::uint32_t size, std::uint32_t opcode = FUSE_READ) {
    fuse_read_in in{};
    in.offset = offset;
    in.size = size;
    return ask(opcode, node, bytes_of(in));
  }
  Answer getattr(NodeId node) { return ask(FUSE_GETATTR, node, bytes_of(fuse_getattr_in{})); }
  Answer setattr(NodeId node, const fuse_setattr_in& in) { return ask(FUSE_SETATTR, node, bytes_of(in)); }
  Answer rename(NodeId from, std::string_view old_name, NodeId to, std::string_view new_name, std::uint32_t flags = 0) {
    return ask(FUSE_RENAME2, from, bytes_of(fuse_rename2_in{to, flags, 0}) + name_of(old_name) + name_of(new_name));
  }
  Answer link(NodeId node, NodeId to, std::string_view name) {
    return ask(FUSE_LINK, to, bytes_of(fuse_link_in{node}) + name_of(name));
  }
  void forget(NodeId node, std::uint64_t lookups) {
    const auto reply = dispatcher_->handle(message(FUSE_FORGET, node, bytes_of(fuse_forget_in{lookups})));
    ASSERT_TRUE(reply);
    EXPECT_TRUE(reply->empty());
  }

 private:
  TemporaryFolder folder_;
  std::optional<Dispatcher> dispatcher_;
  Answer init_;
  NodeId ws0_ = 0;
  NodeId ws1_ = 0;
  std::uint64_t unique_ = 0;
};

}  // namespace sbx::files
