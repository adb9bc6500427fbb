#include "files/node_table.h"

#include <algorithm>
#include <cerrno>

namespace sbx::files {
namespace {

// Slot 0 is node id 2: 1 is the synthetic root, 0 is no id.
constexpr std::uint64_t kFirst = 2;
constexpr std::size_t kMaxDepth = 4096;
constexpr std::size_t kMostOtherPlaces = 8;        // of one file
constexpr std::size_t kMostElsewhere = 1U << 16U;  // of all

std::int64_t birth_of(const struct statx& status) {
  if ((status.stx_mask & STATX_BTIME) == 0) return 0;
  return status.stx_btime.tv_sec * 1'000'000'000 + status.stx_btime.tv_nsec;
}

std::uint32_t slot_of(NodeId id) { return static_cast<std::uint32_t>(id & 0xffffffffU) - kFirst; }

}  // namespace

Told Told::of(const struct statx& status) {
  const auto nanoseconds = [](const statx_timestamp& time) { return time.tv_sec * 1'000'000'000 + time.tv_nsec; };
  Told told;
  told.valid = true;
  told.mode = status.stx_mode;
  told.links = status.stx_nlink;
  told.uid = status.stx_uid;
  told.gid = status.stx_gid;
  told.size = status.stx_size;
  told.changed = nanoseconds(status.stx_ctime);
  told.modified = nanoseconds(status.stx_mtime);
  return told;
}

NodeTable::NodeTable(std::vector<Workspace> workspaces, Limits limits)
    : workspaces_(std::move(workspaces)), limits_(limits) {
  for (std::uint32_t i = 0; i < workspaces_.size(); ++i) {
    Node& node = nodes_.emplace_back();
    node.id = kFirst + i;
    make_root(node, i);
  }
}

void NodeTable::make_root(Node& node, std::uint32_t number) {
  const auto& workspace = workspaces_[number];
  node.workspace = number;
  node.device = device_of(workspace.status);
  node.inode = workspace.status.stx_ino;
  node.birth = birth_of(workspace.status);
  node.type = workspace.status.stx_mode & S_IFMT;
  node.used = node.root = node.indexed = true;
  node.fd = workspace.root;
  index_[{number, node.device, node.inode}] = &node;
  roots_.push_back(&node);
}

Outcome<Node*> NodeTable::add_workspace(Workspace workspace) {
  auto node = allocate();
  if (!node) return node;
  workspaces_.push_back(std::move(workspace));
  make_root(**node, static_cast<std::uint32_t>(workspaces_.size() - 1));
  return node;
}

Node* NodeTable::find(NodeId id) {
  if ((id & 0xffffffffU) < kFirst) return nullptr;
  const auto slot = slot_of(id);
  if (slot >= nodes_.size()) return nullptr;
  Node& node = nodes_[slot];
  return node.used && node.id == id ? &node : nullptr;
}

bool NodeTable::same(const Node& node, const struct statx& status) {
  if (node.device != device_of(status) || node.inode != status.stx_ino) return false;
  if (node.type != (status.stx_mode & S_IFMT)) return false;
  // An inode number can only be given to another file while nobody holds the old one open.
  return node.fd != nullptr || node.birth == birth_of(status);
}

Outcome<SharedFd> NodeTable::descriptor(Node& node) {
  if (node.fd == nullptr) {
    if (auto opened = open_again(node); !opened) return std::unexpected(opened.error());
  }
  touch(node);
  const auto& workspace = workspaces_[node.workspace];
  if (node.root ? !workspace.attached() : !workspace.holds(node.fd->get())) return std::unexpected(ESTALE);
  auto fd = node.fd;
  evict();
  return fd;
}

// Down from the nearest ancestor that has its fd. A loop, since the guest chooses how deep its folders are, and with a
// bound, since moves on the host may have left two nodes each with the other as its parent.
Outcome<void> NodeTable::open_again(Node& node) {
  std::vector<Node*> way;
  for (Node* at = &node; at->fd == nullptr; at = at->parent) {
    if (at->parent == nullptr || way.size() >= kMaxDepth) return std::unexpected(ESTALE);
    way.push_back(at);
  }
  while (!way.empty()) {
    Node& next = *way.back();
    way.pop_back();
    const SharedFd parent = next.parent->fd;
    auto fd = open_child(parent->get(), next.name);
    if (!fd) return std::unexpected(fd.error() == EMFILE || fd.error() == ENFILE ? fd.error() : ESTALE);
    const auto status = status_of(fd->get());
    if (!status || !same(next, *status)) return std::unexpected(ESTALE);
    set_fd(next, std::make_shared<const UniqueFd>(std::move(*fd)));
    touch(next);
  }
  return {};
}

Outcome<Node*> NodeTable::adopt(Node& parent, const std::string& name, UniqueFd fd, const struct statx& status) {
  const Key key{parent.workspace, device_of(status), status.stx_ino};
  if (const auto found = index_.find(key); found != index_.end()) {
    Node& node = *found->second;
    if (same(node, status)) {
      if (node.fd == nullptr) set_fd(node, std::make_shared<const UniqueFd>(std::move(fd)));
      if (!node.root && &node != &parent) {
        if (node.parent != nullptr && (node.parent != &parent || node.name != name)) left_(*node.parent, node.name);
        set_place(node, &parent, name);
      }
      ++node.lookups;
      touch(node);
      evict();
      return &node;
    }
    unindex(node);  // the number now belongs to another file
  }
  auto allocated = allocate();
  if (!allocated) return allocated;
  Node& node = **allocated;
  node.workspace = parent.workspace;
  node.device = key.device;
  node.inode = key.inode;
  node.birth = birth_of(status);
  node.type = status.stx_mode & S_IFMT;
  node.lookups = 1;
  node.indexed = true;
  index_[key] = &node;
  set_place(node, &parent, name);
  set_fd(node, std::make_shared<const UniqueFd>(std::move(fd)));
  touch(node);
  evict();
  return &node;
}

Outcome<Node*> NodeTable::allocate() {
  if (!free_.empty()) {
    Node& node = nodes_[free_.back()];
    free_.pop_back();
    node.used = true;
    return &node;
  }
  if (nodes_.size() >= limits_.nodes) return std::unexpected(ENFILE);
  Node& node = nodes_.emplace_back();
  node.id = kFirst + nodes_.size() - 1;
  node.used = true;
  return &node;
}

void NodeTable::forget(NodeId id, std::uint64_t lookups) {
  Node* node = find(id);
  if (node == nullptr) return;
  node->lookups -= std::min(node->lookups, lookups);
  node->met = false;  // if it is looked up again just now, the guest makes a new inode for it
  free_if_unused(node);
}

void NodeTable::free_if_unused(Node* node) {
  while (node != nullptr && node->used && !node->root && node->lookups == 0 && node->children == 0 &&
         node->handles == 0) {
    Node* parent = node->parent;
    if (parent != nullptr) {
      places_.erase({parent->id, node->name});
      --parent->children;
    }
    free(*node);
    node = parent;
  }
}

void NodeTable::free(Node& node) {
  freed_(node);
  unindex(node);
  set_fd(node, nullptr);
  node.parent = nullptr;
  node.name.clear();
  if (const auto others = elsewhere_.find(node.id); others != elsewhere_.end()) {
    elsewhere_count_ -= others->second.size();
    elsewhere_.erase(others);
  }
  node.used = false;
  node.watch = -1;
  node.listed = node.met = false;
  node.told = {};
  node.acted = {};
  node.invalidated_modified = -1;
  node.id += 1ULL << 32U;  // the next generation
  free_.push_back(slot_of(node.id));
}

void NodeTable::unindex(Node& node) {
  if (!node.indexed) return;
  index_.erase({node.workspace, node.device, node.inode});
  node.indexed = false;
}

Node* NodeTable::known_child(Node& parent, int parent_fd, const std::string& name) {
  auto fd = open_child(parent_fd, name);
  if (!fd) return nullptr;
  const auto status = status_of(fd->get());
  if (!status) return nullptr;
  Node* found = find_inode(parent.workspace, *status);
  if (found == nullptr) return nullptr;
  Node& node = *found;
  if (node.fd == nullptr) {
    set_fd(node, std::make_shared<const UniqueFd>(std::move(*fd)));
    touch(node);
  }
  return &node;
}

void NodeTable::lost_name(Node* node, const Node& parent, const std::string& name) {
  if (node == nullptr || node->root || node->parent != &parent || node->name != name) return;
  set_place(*node, nullptr, "");
  touch(*node);
}

void NodeTable::moved(Node* node, Node& parent, const std::string& name) {
  if (node == nullptr || node->root || node == &parent) return;
  set_place(*node, &parent, name);
  touch(*node);
}

bool NodeTable::find_name(Node& node) {
  const auto is_at = [&](Node& folder, const std::string& name) {
    const auto folder_fd = descriptor(folder);
    auto fd = folder_fd ? open_child((*folder_fd)->get(), name) : std::unexpected(folder_fd.error());
    const auto status = fd ? status_of(fd->get()) : std::unexpected(fd.error());
    if (!status || !same(node, *status)) return false;
    set_fd(node, std::make_shared<const UniqueFd>(std::move(*fd)));
    touch(node);
    return true;
  };
  if (node.parent != nullptr && is_at(*node.parent, node.name)) return true;
  const auto others = elsewhere_.find(node.id);
  if (others == elsewhere_.end()) return false;
  for (const auto& [folder, name] : others->second) {
    Node* parent = find(folder);
    if (parent != nullptr && parent->is_folder() && is_at(*parent, name)) return true;
  }
  return false;
}

void NodeTable::remember_place(const Node& node) {
  if (!node.is_file() || elsewhere_count_ >= kMostElsewhere) return;
  auto& others = elsewhere_[node.id];
  const Place place{node.parent->id, node.name};
  if (std::ranges::find(others, place) != others.end()) return;
  if (others.size() >= kMostOtherPlaces) {
    others.erase(others.begin());
    --elsewhere_count_;
  }
  others.push_back(place);
  ++elsewhere_count_;
}

void NodeTable::set_place(Node& node, Node* parent, const std::string& name) {
  if (node.parent == parent && node.name == name) return;
  Node* before = node.parent;
  if (before != nullptr) {
    places_.erase({before->id, node.name});
    remember_place(node);
  }
  if (parent != nullptr) {
    ++parent->children;
    Node*& occupant = places_[{parent->id, name}];
    if (occupant != nullptr) {  // it is no longer there
      occupant->parent = nullptr;
      occupant->name.clear();
      --parent->children;
      touch(*occupant);
    }
    occupant = &node;
  }
  node.parent = parent;
  node.name = name;
  if (before != nullptr) {
    --before->children;
    free_if_unused(before);
  }
}

Node* NodeTable::child(const Node& parent, const std::string& name) {
  const auto found = places_.find({parent.id, name});
  return found == places_.end() ? nullptr : found->second;
}

Node* NodeTable::find_inode(std::uint32_t workspace, const struct statx& status) {
  const auto found = index_.find({workspace, device_of(status), status.stx_ino});
  return found != index_.end() && same(*found->second, status) ? found->second : nullptr;
}

void NodeTable::for_each(const std::function<void(Node&)>& each) {
  for (auto& node : nodes_) {
    if (node.used) each(node);
  }
}

void NodeTable::observe(std::function<void(Node&)> freed,
                        std::function<void(Node& parent, const std::string& name)> left) {
  freed_ = std::move(freed);
  left_ = std::move(left);
}

void NodeTable::add_handle(Node& node) {
  ++node.handles;
  touch(node);
}

void NodeTable::drop_handle(Node& node) {
  --node.handles;
  touch(node);
  free_if_unused(&node);
}

void NodeTable::set_fd(Node& node, SharedFd fd) {
  if (node.root) return;
  open_ += fd != nullptr ? 1 : 0;
  open_ -= node.fd != nullptr ? 1 : 0;
  node.fd = std::move(fd);
  if (node.fd == nullptr && node.in_recent) {
    recent_.erase(node.recent);
    node.in_recent = false;
  }
}

void NodeTable::touch(Node& node) {
  const bool belongs = node.fd != nullptr && !node.root && node.handles == 0 && node.parent != nullptr;
  if (belongs && node.in_recent) {
    recent_.splice(recent_.begin(), recent_, node.recent);
  } else if (belongs) {
    node.recent = recent_.insert(recent_.begin(), &node);
  } else if (node.in_recent) {
    recent_.erase(node.recent);
  }
  node.in_recent = belongs;
}

void NodeTable::evict() {
  while (open_ > limits_.descriptors && !recent_.empty()) set_fd(*recent_.back(), nullptr);
}

void NodeTable::reset() {
  places_.clear();
  for (auto& node : nodes_) {
    node.lookups = 0;
    node.handles = 0;
    node.children = 0;
    if (node.root) {
      node.listed = node.met = false;
      node.told = {};
    } else if (node.used) {
      free(node);
    }
  }
}

}  // namespace sbx::files
