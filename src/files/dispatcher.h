// The FUSE server as an object that turns one request message into one reply message. The guest's kernel is not
// trusted: each opcode has a row in a table that says how long its body must be, every node, handle, name and size is
// checked before it is used, and what the guest can make the server hold is bounded by Limits.
//
// Node 1 is a synthetic read-only folder whose entries are the workspaces, named by index. Links and renames across
// workspaces are EXDEV. Locks, polls and ioctls stay in the guest's kernel (ENOSYS here).
//
// Thread safety: none.
#pragma once

#include <chrono>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "files/attributes.h"
#include "files/handle_table.h"
#include "files/message.h"
#include "files/node_table.h"
#include "files/workspace.h"

namespace sbx::files {

class Dispatcher {
 public:
  struct Limits {
    std::size_t handles = 4096;
    NodeTable::Limits nodes;
    // How long the guest may believe names and attributes without asking. 0: a change on the host is seen at once.
    std::chrono::milliseconds cache{0};
  };

  Dispatcher(std::vector<Workspace> workspaces, Limits limits);

  // `message` is one whole request, its length field included. The reply is valid until the next call and empty for
  // requests that have none. A malformed request is answered with an errno; an Error means that the framing itself is
  // broken and that the session must end.
  Result<std::string_view> handle(std::string_view message);

  std::size_t open_handles() const { return handles_.size(); }
  const NodeTable& nodes() const { return nodes_; }

 private:
  // 0 or a positive errno; what was added to the reply counts only with 0.
  using Operation = int (Dispatcher::*)(const Request&, Reply&);
  struct Row {
    Operation operation = nullptr;
    std::size_t minimum_body = 0;
    bool answered = true;
  };
  static const Row* row_of(std::uint32_t opcode);

  enum class Intent { kLook, kChange };
  // A node and its O_PATH fd, which outlives the node's eviction.
  struct Target {
    Node* node;
    SharedFd fd;
    int get() const { return fd->get(); }
  };
  // ESTALE for an unknown node; EROFS for a change in the synthetic root or a read-only workspace.
  Outcome<Target> target(NodeId id, Intent intent);
  // The same, and ENOTDIR for what is no folder.
  Outcome<Target> folder(NodeId id, Intent intent);

  void add_entry(Reply& reply, const Node& node, const struct statx& status);
  void add_attributes(Reply& reply, const fuse_attr& attr);
  int reply_with_entry(const Target& parent, const std::string& name, Reply& reply);
  int lookup_workspace(std::string_view name, Reply& reply);
  fuse_attr synthetic_attributes() const;
  Outcome<std::uint64_t> open_handle(Node& node, HandleKind kind, UniqueFd fd);
  int release(const Request& request, HandleKind kind);
  int sync(const Request& request, HandleKind kind);
  int rename_entry(const Request& request, NodeId new_parent, std::uint32_t flags, Body body);
  int change_mode(const Target& node, const struct statx& now, std::uint32_t mode);
  int change_size(const Request& request, const fuse_setattr_in& in, const Target& node);
  static int change_times(const fuse_setattr_in& in, const Target& node);
  int read_synthetic_root(const fuse_read_in& in, Reply& reply);
  Outcome<Target> xattr_target(NodeId id, std::string_view name, Intent intent);

  // session (dispatcher.cpp)
  int op_init(const Request&, Reply&);
  int op_destroy(const Request&, Reply&);
  int op_forget(const Request&, Reply&);
  int op_batch_forget(const Request&, Reply&);
  int op_ignore(const Request&, Reply&);
  // names (names.cpp)
  int op_lookup(const Request&, Reply&);
  int op_symlink(const Request&, Reply&);
  int op_mknod(const Request&, Reply&);
  int op_mkdir(const Request&, Reply&);
  int op_unlink(const Request&, Reply&);
  int op_rmdir(const Request&, Reply&);
  int op_rename(const Request&, Reply&);
  int op_rename2(const Request&, Reply&);
  int op_link(const Request&, Reply&);
  // attributes (metadata.cpp)
  int op_getattr(const Request&, Reply&);
  int op_setattr(const Request&, Reply&);
  int op_readlink(const Request&, Reply&);
  int op_statfs(const Request&, Reply&);
  // extended attributes (xattrs.cpp)
  int op_setxattr(const Request&, Reply&);
  int op_getxattr(const Request&, Reply&);
  int op_listxattr(const Request&, Reply&);
  int op_removexattr(const Request&, Reply&);
  // contents (contents.cpp)
  int op_open(const Request&, Reply&);
  int op_create(const Request&, Reply&);
  int op_read(const Request&, Reply&);
  int op_write(const Request&, Reply&);
  int op_release(const Request&, Reply&);
  int op_fsync(const Request&, Reply&);
  int op_fallocate(const Request&, Reply&);
  int op_lseek(const Request&, Reply&);
  int op_copy_file_range(const Request&, Reply&);
  // folders (folders.cpp)
  int op_opendir(const Request&, Reply&);
  int op_readdir(const Request&, Reply&);
  int op_releasedir(const Request&, Reply&);
  int op_fsyncdir(const Request&, Reply&);

  Limits limits_;
  NodeTable nodes_;
  HandleTable handles_;
  Attributes attributes_;
  Reply reply_;
  bool ready_ = false;  // INIT has been agreed on
};

}  // namespace sbx::files
