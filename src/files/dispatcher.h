// The FUSE server as an object that turns one request message into one reply message. The guest's kernel is not
// trusted: each opcode has a row in a table that says how long its body must be, every node, name and size is
// checked before it is used, and what the guest can make the server hold is bounded by Limits.
//
// The guest opens, flushes and closes without a word (ENOSYS to OPEN, OPENDIR and FLUSH, which holds for the
// connection; it then sends no RELEASE for what it has created either). So there are no handles: reads and writes name
// the node alone, and a write that the host refuses shows at write(2) rather than at open(2).
//
// Node 1 is a synthetic read-only folder whose entries are the workspaces, named by index. Links and renames across
// workspaces are EXDEV. Locks, polls and ioctls stay in the guest's kernel (ENOSYS here).
//
// Thread safety: none.
#pragma once

#include <chrono>
#include <optional>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "files/attributes.h"
#include "files/coherence.h"
#include "files/guard.h"
#include "files/job.h"
#include "files/message.h"
#include "files/node_table.h"
#include "files/open_files.h"
#include "files/workspace.h"

namespace sbx::files {

class Dispatcher {
 public:
  struct Limits {
    NodeTable::Limits nodes;
    // How long the guest may believe names and attributes without asking, where changes on the host are watched for.
    // 0: never.
    std::chrono::milliseconds cache{0};
    std::size_t open_files = 512;
    std::size_t watches = 1U << 16U;
  };

  // Without `watch` the guest caches nothing. `late` is an O_PATH fd of the folder in which workspaces may be mounted
  // later; they are looked for when the guest asks.
  Dispatcher(std::vector<Workspace> workspaces, Limits limits, std::optional<HostWatch> watch = {}, Rules rules = {},
             std::optional<Journal> journal = {}, UniqueFd late = {});

  // `message` is one whole request, its length field included. The reply is valid until the next call and empty for
  // requests that have none. A malformed request is answered with an errno; an Error means that the framing itself is
  // broken and that the session must end.
  // With `later`, work on a file's contents that may take a while is not done: the reply is empty, and `later` holds
  // a job that makes it (and refers to `message`).
  Result<std::string_view> handle(std::string_view message, std::optional<Job>* later = nullptr);

  // What has changed on the host since the last call, as notifications for the guest, appended to `messages`; returns
  // how many.
  std::size_t notifications(std::string& messages);
  // The descriptor that is readable when something may have changed; -1 if nothing is watched.
  int watch_fd() const { return coherence_.fd(); }
  // To be called every OpenFiles::kWriterLife or so while it returns true.
  bool sweep();

  std::size_t open_files() const { return files_.size(); }
  std::size_t watches() const { return coherence_.watches(); }
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

  // Checks before a change (guarded.cpp); 0 or an errno.
  // Where a node is now; ESTALE if nowhere in its workspace.
  Outcome<std::string> place_of(const Node& node, int fd) const;
  Outcome<std::string> place_in(const Target& parent, const std::string& name) const;
  unsigned index_of(const Node& node) const { return nodes_.workspace_of(node).index; }
  // The contents or attributes of a file or folder, before they change: also that it has no name that the guest has not
  // made, and what it was like for the journal.
  struct Change {
    const Node* workspace;  // any node of it
    int fd;
    std::string place;
    bool named;  // the file is still at a place
  };
  int check_change(const Target& node, std::string_view kind);
  // Whether the server knows of a name that the file still has.
  Outcome<bool> is_named(const Target& file);
  int check_change(const Change& change, std::string_view kind);
  int check_make(const Target& parent, const std::string& name, mode_t type);
  bool hidden_in(const Target& parent, const std::string& name) const;
  // An entry that is about to lose its place, or to get one: what it is now, and where. After the change, tell().
  struct Entry {
    std::string place;
    UniqueFd fd;  // invalid: there is none
    struct statx status {};
  };
  Outcome<Entry> entry_at(const Target& parent, const std::string& name) const;
  // Whether what is in a folder that is moved may be where it then is.
  int check_arrival(unsigned workspace, const Entry& folder, const std::string& to);
  int remove_entry(const Request& request, int flags);
  void tell_changed(const Node& in_workspace_of, const Entry& entry);
  void tell_made(const Target& parent, const std::string& name);

  // `folder`: null for the synthetic root.
  void add_entry(Reply& reply, Node* folder, Node& node, const struct statx& status);
  void add_attributes(Reply& reply, std::chrono::milliseconds lifetime, const fuse_attr& attr);
  // Looks at `name` in the folder, makes its node and counts a look-up; `status` is then what the guest is told.
  Outcome<Node*> adopt_child(const Target& parent, const std::string& name, struct statx& status);
  int reply_with_entry(const Target& parent, const std::string& name, Reply& reply);
  // The same for what the guest has just made there.
  int reply_with_new(const Target& parent, const std::string& name, Reply& reply);
  int reply_with_missing(Node& parent, const std::string& name, Reply& reply);
  int lookup_workspace(std::string_view name, Reply& reply);
  int reply_with_workspace(std::size_t number, Reply& reply);
  fuse_attr synthetic_attributes() const;
  // kSync: for writing, but nothing changes by it.
  enum class Access { kRead, kWrite, kSync };
  // The descriptor for a request on a file's contents.
  Outcome<SharedFd> contents_of(NodeId id, Access access);
  using Work = std::move_only_function<int(Reply&)>;
  // Does the work, or leaves it for later.
  int perform(Work work, Reply& reply);
  int rename_entry(const Request& request, NodeId new_parent, std::uint32_t flags, Body body);
  int change_mode(const Target& node, const struct statx& now, std::uint32_t mode);
  int change_size(const Request& request, const fuse_setattr_in& in, const Target& node);
  static int change_times(const fuse_setattr_in& in, const Target& node);
  int read_synthetic_root(const fuse_read_in& in, bool with_attributes, Reply& reply);
  int list(const Request& request, bool with_attributes, Reply& reply);
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
  int op_create(const Request&, Reply&);
  int op_read(const Request&, Reply&);
  int op_write(const Request&, Reply&);
  int op_fsync(const Request&, Reply&);
  int op_fallocate(const Request&, Reply&);
  int op_lseek(const Request&, Reply&);
  int op_copy_file_range(const Request&, Reply&);
  // folders (folders.cpp)
  int op_readdir(const Request&, Reply&);
  int op_readdirplus(const Request&, Reply&);
  int op_fsyncdir(const Request&, Reply&);

  Limits limits_;
  UniqueFd late_;
  NodeTable nodes_;
  OpenFiles files_;
  OpenFolders listings_{64};
  Guard guard_;
  Coherence coherence_;
  Attributes attributes_;
  Reply reply_;
  std::optional<Job>* later_ = nullptr;
  std::uint64_t unique_ = 0;  // of the request that is being handled
  bool ready_ = false;        // INIT has been agreed on
};

}  // namespace sbx::files
