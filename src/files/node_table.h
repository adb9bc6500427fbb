// The inodes that the guest knows, by node id. A node id is a slot and the slot's generation, so that one which was
// forgotten, or made up by the guest, finds nothing. A node is one (workspace, device, inode): hard links share it,
// overlapping workspaces do not.
//
// A node's O_PATH fd is kept while it is among the most recently used; later it is opened again by parent and name, and
// must then be the same inode (ESTALE otherwise). Nodes with open handles, roots and files that lost their name keep
// their fd.
//
// Thread safety: none.
#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <list>
#include <string>
#include <unordered_map>
#include <vector>

#include "files/confined.h"
#include "files/workspace.h"

namespace sbx::files {

using NodeId = std::uint64_t;
inline constexpr NodeId kSyntheticRoot = FUSE_ROOT_ID;

// What of a file's attributes the guest was told and may still believe (see Coherence).
struct Told {
  bool valid = false;
  std::uint32_t mode = 0;
  std::uint32_t links = 0;
  std::uint32_t uid = 0;
  std::uint32_t gid = 0;
  std::uint64_t size = 0;
  std::int64_t changed = 0;   // ctime, ns
  std::int64_t modified = 0;  // mtime, ns

  static Told of(const struct statx& status);
  bool operator==(const Told&) const = default;
};

struct Node {
  NodeId id = 0;
  std::uint32_t workspace = 0;  // position in NodeTable::workspaces()
  Node* parent = nullptr;       // null: no name known
  std::string name;
  dev_t device = 0;
  ino_t inode = 0;
  std::int64_t birth = 0;
  mode_t type = 0;            // S_IFMT bits
  std::uint64_t lookups = 0;  // what the guest has yet to FORGET
  std::uint32_t children = 0;
  std::uint32_t handles = 0;
  bool used = false;
  bool root = false;
  bool indexed = false;  // found by (workspace, device, inode)

  // For Coherence.
  int watch = -1;       // HostWatch's number
  bool listed = false;  // a folder whose entries the guest may have cached
  bool met = false;     // the guest has used its id, and so has an inode for it
  Told told;
  std::chrono::steady_clock::time_point acted{};  // when the guest last changed it, or names in it
  std::int64_t invalidated_modified = -1;         // mtime and size when the guest was last told to drop the contents
  std::uint64_t invalidated_size = 0;

  bool is_folder() const { return S_ISDIR(type); }
  bool is_file() const { return S_ISREG(type); }

 private:
  friend class NodeTable;
  SharedFd fd;
  bool in_recent = false;
  std::list<Node*>::iterator recent;
};

class NodeTable {
 public:
  struct Limits {
    std::size_t nodes = 1U << 20U;
    std::size_t descriptors = 4096;
  };

  NodeTable(std::vector<Workspace> workspaces, Limits limits);

  const std::vector<Workspace>& workspaces() const { return workspaces_; }
  const Workspace& workspace_of(const Node& node) const { return workspaces_[node.workspace]; }
  Node& root_of(std::size_t workspace) { return *roots_[workspace]; }
  // One that came to be after the start. ENFILE when the table is full.
  Outcome<Node*> add_workspace(Workspace workspace);

  // Null for what is no node (any more), and for the synthetic root.
  Node* find(NodeId id);
  // The node's O_PATH fd; ESTALE if the node is not to be found at its place, or its place is outside the workspace.
  Outcome<SharedFd> descriptor(Node& node);
  // Counts one lookup of the file behind `fd`, found as `name` in `parent`, and makes its node if it has none yet.
  // ENFILE when the table is full.
  Outcome<Node*> adopt(Node& parent, const std::string& name, UniqueFd fd, const struct statx& status);
  void count_lookup(Node& node) { ++node.lookups; }
  void forget(NodeId id, std::uint64_t lookups);

  // The node whose place is `name` in `parent`, whatever the host has there now.
  Node* child(const Node& parent, const std::string& name);
  // The node of the file with this status in a workspace.
  Node* find_inode(std::uint32_t workspace, const struct statx& status);
  void for_each(const std::function<void(Node&)>& each);
  // `freed`: the node is about to be. `left`: the guest was told that a file is elsewhere too, and may still believe
  // in this place.
  void observe(std::function<void(Node&)> freed, std::function<void(Node& parent, const std::string& name)> left);

  // The node of the file at `name` in `parent`, if the guest knows it; its fd is open then, so that losing the name
  // does not lose the node.
  Node* known_child(Node& parent, int parent_fd, const std::string& name);
  // `node` has been removed at this place, or has moved to another.
  void lost_name(Node* node, const Node& parent, const std::string& name);
  void moved(Node* node, Node& parent, const std::string& name);
  // Whether a file is still to be found by a name: at its place, or where it was once met. If so its fd is opened anew
  // by that name, and the kernel knows it by it. For files whose fd's own name is gone.
  bool find_name(Node& node);

  void add_handle(Node& node);
  void drop_handle(Node& node);

  std::size_t size() const { return nodes_.size() - free_.size(); }
  std::size_t descriptors() const { return open_; }
  // Forgets everything but the roots.
  void reset();

 private:
  struct Key {
    std::uint32_t workspace;
    dev_t device;
    ino_t inode;
    bool operator==(const Key&) const = default;
  };
  struct KeyHash {
    std::size_t operator()(const Key& key) const {
      return std::hash<std::uint64_t>()(key.inode * 0x9e3779b97f4a7c15U ^ key.device << 8U ^ key.workspace);
    }
  };

  struct Place {
    NodeId parent;
    std::string name;
    bool operator==(const Place&) const = default;
  };
  struct PlaceHash {
    std::size_t operator()(const Place& place) const {
      return std::hash<std::string>()(place.name) ^ place.parent * 0x9e3779b97f4a7c15U;
    }
  };

  static bool same(const Node& node, const struct statx& status);
  Outcome<Node*> allocate();
  void make_root(Node& node, std::uint32_t workspace);
  Outcome<void> open_again(Node& node);
  void set_fd(Node& node, SharedFd fd);
  void set_place(Node& node, Node* parent, const std::string& name);
  void remember_place(const Node& node);
  void unindex(Node& node);
  void free_if_unused(Node* node);
  void free(Node& node);
  // Brings the node's place in the list of recently used ones up to date.
  void touch(Node& node);
  void evict();

  std::vector<Workspace> workspaces_;
  Limits limits_;
  std::deque<Node> nodes_;
  std::vector<Node*> roots_;  // by workspace
  std::vector<std::uint32_t> free_;
  std::unordered_map<Key, Node*, KeyHash> index_;
  std::unordered_map<Place, Node*, PlaceHash> places_;
  // Where else a file was met: its other names, if they are still there. The latest few, and not more than the limit
  // in all.
  std::unordered_map<NodeId, std::vector<Place>> elsewhere_;
  std::size_t elsewhere_count_ = 0;
  std::function<void(Node&)> freed_ = [](Node&) {};
  std::function<void(Node&, const std::string&)> left_ = [](Node&, const std::string&) {};
  std::list<Node*> recent_;
  std::size_t open_ = 0;
};

}  // namespace sbx::files
