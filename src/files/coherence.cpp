#include "files/coherence.h"

#include <linux/fuse.h>
#include <sys/inotify.h>

#include <algorithm>
#include <cctype>

#include "wire/files_port.h"

namespace sbx::files {
namespace {

using std::chrono::milliseconds;

// Nothing is called this (and were it, its invalidation would do no harm): only the folder's lock is meant.
constexpr std::string_view kNoName = "\001sbx\001";

template <typename T>
void append(std::string& messages, const T& value) {
  messages.append(reinterpret_cast<const char*>(&value), sizeof(value));
}

void append_head(std::string& messages, int code, std::size_t body) {
  fuse_out_header header{};
  header.len = static_cast<std::uint32_t>(sizeof(header) + body);
  header.error = code;
  append(messages, header);  // unique 0: not a reply
}

void append_entry(std::string& messages, NodeId folder, std::string_view name) {
  append_head(messages, FUSE_NOTIFY_INVAL_ENTRY, sizeof(fuse_notify_inval_entry_out) + name.size() + 1);
  append(messages, fuse_notify_inval_entry_out{folder, static_cast<std::uint32_t>(name.size()), 0});
  messages.append(name).push_back('\0');
}

// An offset of -1 keeps the pages.
void append_inode(std::string& messages, NodeId node, bool contents) {
  append_head(messages, FUSE_NOTIFY_INVAL_INODE, sizeof(fuse_notify_inval_inode_out));
  append(messages, fuse_notify_inval_inode_out{node, contents ? 0 : -1, 0});
}

// How long after the guest's own change of a file or folder events there are taken for its echo. A program that builds
// when it is told of a change, and writes where it watches, would otherwise never come to rest.
constexpr std::chrono::milliseconds kEcho{1000};
// The longest way from a workspace's root.
constexpr std::size_t kMaxDepth = 512;

// What the kernel calls a file made with O_TMPFILE in its events: '#' and the inode's number.
bool is_nameless(std::string_view name) {
  return name.size() > 1 && name[0] == '#' &&
         std::all_of(name.begin() + 1, name.end(), [](unsigned char c) { return std::isdigit(c) != 0; });
}

}  // namespace

Coherence::Coherence(NodeTable& nodes, std::optional<HostWatch> watch, Limits limits,
                     std::function<void(const Node&)> access_changed)
    : nodes_(nodes), watch_(std::move(watch)), limits_(limits), access_changed_(std::move(access_changed)) {
  if (limits_.lifetime == milliseconds(0)) watch_.reset();
}

bool Coherence::may_watch(const Node& node) const {
  return watch_ && node.watch < 0 && by_watch_.size() < limits_.watches;
}

void Coherence::watched(Node& node, int watch) {
  node.watch = watch;
  by_watch_[watch].push_back(node.id);
}

bool Coherence::cover(Node& folder) {
  if (folder.watch >= 0) return true;
  if (!folder.is_folder() || !may_watch(folder)) return false;
  const auto fd = nodes_.descriptor(folder);
  if (!fd) return false;
  const auto watch = watch_->add_folder((*fd)->get());
  if (watch) watched(folder, *watch);
  return watch.has_value();
}

void Coherence::cover_file(Node& file) {
  if (!file.is_file() || !may_watch(file)) return;
  const auto fd = nodes_.descriptor(file);
  if (!fd) return;
  if (const auto watch = watch_->add_file((*fd)->get())) watched(file, *watch);
}

milliseconds Coherence::entry_lifetime(const Node& folder) const {
  return folder.watch >= 0 ? limits_.lifetime : milliseconds(0);
}

milliseconds Coherence::missing_lifetime(Node& folder, const std::string& name) {
  if (!missing_allowed_ || folder.watch < 0 || !remember_name(folder, name)) return milliseconds(0);
  return limits_.lifetime;
}

milliseconds Coherence::attribute_lifetime(Node& node, const struct statx& status) {
  bool covered = false;
  if (node.is_folder()) {
    covered = node.watch >= 0;
  } else if (status.stx_nlink == 1) {
    covered = node.parent != nullptr && node.parent->watch >= 0;
  } else {
    cover_file(node);
  }
  node.told = covered ? Told::of(status) : Told{};
  return covered ? limits_.lifetime : milliseconds(0);
}

bool Coherence::remember_name(Node& folder, const std::string& name) {
  if (names_count_ >= limits_.names) return false;
  if (names_[folder.id].insert(name).second) ++names_count_;
  return true;
}

bool Coherence::take_name(const Node& folder, const std::string& name) {
  const auto found = names_.find(folder.id);
  if (found == names_.end() || found->second.erase(name) == 0) return false;
  --names_count_;
  if (found->second.empty()) names_.erase(found);
  return true;
}

void Coherence::made(const Node& folder, const std::string& name) {
  take_name(folder, name);
  entries_.erase({folder.id, name});
}

void Coherence::left(Node& folder, const std::string& name) {
  if (folder.watch >= 0 && !remember_name(folder, name)) drop_entry(folder, name);
}

void Coherence::forgotten(Node& node) {
  if (const auto names = names_.find(node.id); names != names_.end()) {
    names_count_ -= names->second.size();
    names_.erase(names);
  }
  nodes_to_drop_.erase(node.id);
  if (node.watch < 0) return;
  const auto found = by_watch_.find(node.watch);
  node.watch = -1;
  if (found == by_watch_.end()) return;
  std::erase(found->second, node.id);
  if (!found->second.empty()) return;
  watch_->remove(found->first);
  by_watch_.erase(found);
}

void Coherence::reset() {
  entries_.clear();
  changes_.clear();
  nodes_to_drop_.clear();
  names_.clear();
  names_count_ = 0;
  everything_ = false;
}

void Coherence::drain() {
  if (watch_) watch_->drain([this](const HostWatch::Event& event) { on_event(event); });
}

void Coherence::on_event(const HostWatch::Event& event) {
  if (event.watch < 0 || (event.mask & IN_UNMOUNT) != 0) everything_ = true;
  const auto found = by_watch_.find(event.watch);
  if (found == by_watch_.end()) return;
  const auto ids = found->second;  // a node may go while its event is dealt with
  if ((event.mask & IN_IGNORED) != 0) by_watch_.erase(found);
  for (const auto id : ids) {
    Node* node = nodes_.find(id);
    if (node == nullptr) continue;
    if ((event.mask & IN_IGNORED) != 0) {
      node->watch = -1;
      drop_node(*node, What::kContents);
    } else if (event.name.empty()) {
      on_node_event(*node, event.mask);
    } else {
      on_entry_event(*node, std::string(event.name), event.mask);
    }
  }
}

void Coherence::on_node_event(Node& node, std::uint32_t mask) {
  if ((mask & (IN_MODIFY | IN_CLOSE_WRITE)) != 0) contents_changed(node, mask);
  if ((mask & IN_ATTRIB) != 0 && !as_told(node)) {
    access_changed_(node);
    drop_node(node, What::kAttributes);
  }
}

void Coherence::on_entry_event(Node& folder, const std::string& name, std::uint32_t mask) {
  if ((mask & (IN_CREATE | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO)) != 0) return names_changed(folder, name, mask);
  Node* node = nodes_.child(folder, name);
  if (node == nullptr) node = node_at(folder, name);
  if (node != nullptr) return on_node_event(*node, mask);
  // Of no concern to the guest's kernel, which has not looked at it; its programs may watch the folder.
  if ((mask & IN_MODIFY) != 0) changed(folder, name, nullptr);
  // Written through a descriptor that was opened before the file had a name: it may be any of them by now.
  if (is_nameless(name)) {
    nodes_.for_each([&](Node& any) {
      if (any.parent == &folder) drop_node(any, What::kContents);
    });
  }
}

void Coherence::contents_changed(Node& node, std::uint32_t mask) {
  if ((mask & IN_MODIFY) == 0) {
    // Closed: nothing new, unless it was written through a mapping since.
    const auto fd = nodes_.descriptor(node);
    const auto status = fd ? status_of((*fd)->get()) : std::unexpected(fd.error());
    if (status && Told::of(*status).modified == node.invalidated_modified &&
        status->stx_size == node.invalidated_size) {
      return;
    }
  }
  drop_node(node, What::kContents);
  if (node.parent != nullptr) changed(*node.parent, node.name, &node);
}

bool Coherence::as_told(Node& node) {
  if (!node.told.valid) return false;
  const auto fd = nodes_.descriptor(node);
  const auto status = fd ? status_of((*fd)->get()) : std::unexpected(fd.error());
  return status && node.told == Told::of(*status);
}

Node* Coherence::node_at(Node& folder, const std::string& name) {
  const auto folder_fd = nodes_.descriptor(folder);
  if (!folder_fd) return nullptr;
  const auto fd = open_child((*folder_fd)->get(), name);
  if (!fd) return nullptr;
  const auto status = status_of(fd->get());
  return status ? nodes_.find_inode(folder.workspace, *status) : nullptr;
}

void Coherence::names_changed(Node& folder, const std::string& name, std::uint32_t mask) {
  nodes_.add_handle(folder);  // it must not go with its last child
  Node* known = nodes_.child(folder, name);
  Node* now = node_at(folder, name);
  if (known != now || known == nullptr) changed(folder, name, nullptr);
  // It may have been written under another name before it came back to this one.
  if (known != nullptr && (mask & IN_MOVED_FROM) != 0) drop_node(*known, What::kContents);
  if (known == now && known != nullptr && known->told.valid && !as_told(*known)) {
    drop_node(*known, What::kAttributes);  // a link more or less
  }
  if (known != now && known != nullptr) {
    drop_entry(folder, name);
    cover_file(*known);
    drop_node(*known, What::kContents);
    nodes_.lost_name(known, folder, name);
  }
  if (known != now && now != nullptr && !now->root && now != &folder) {
    drop_node(*now, What::kContents);
    if (now->parent != nullptr) left(*now->parent, now->name);
    nodes_.moved(now, folder, name);
  }
  if (take_name(folder, name)) drop_entry(folder, name);
  if (folder.listed) {
    drop_node(folder, What::kContents);
  } else if (folder.told.valid && !as_told(folder)) {
    drop_node(folder, What::kAttributes);
  }
  nodes_.drop_handle(folder);
}

void Coherence::changed(const Node& folder, const std::string& name, const Node* node) {
  const auto since = std::chrono::steady_clock::now() - kEcho;
  if ((node != nullptr ? node->acted : folder.acted) > since) return;
  if (changes_.size() < limits_.changes) changes_.insert({folder.id, name});
}

void Coherence::append_change(std::string& messages, const Node& folder, std::string_view name) {
  std::vector<std::string_view> way{name};
  const Node* at = &folder;
  for (; !at->root; at = at->parent) {
    if (at->parent == nullptr || way.size() > kMaxDepth) return;
    way.push_back(at->name);
  }
  std::string path = std::to_string(nodes_.workspace_of(*at).index);
  const std::size_t index = path.size() + 1;
  for (auto part = way.rbegin(); part != way.rend(); ++part) path.append("/").append(*part);
  if (hidden_(std::string_view(path).substr(index))) return;
  append_head(messages, wire::kHostChanged, path.size() + 1);
  messages.append(path).push_back('\0');
}

void Coherence::drop_entry(const Node& folder, const std::string& name) { entries_.insert({folder.id, name}); }

void Coherence::drop_node(Node& node, What what) {
  node.told.valid = false;
  if (what == What::kContents) node.listed = false;
  const auto [waiting, fresh] = nodes_to_drop_.try_emplace(node.id, what);
  if (!fresh && what == What::kContents) waiting->second = what;
}

// The names are compared with the host's, since a folder that is in its place must stay: a process may work in it.
void Coherence::disbelieve_everything() {
  for (const auto& [folder, names] : std::exchange(names_, {})) {
    for (const auto& name : names) entries_.insert({folder, name});
  }
  names_count_ = 0;
  std::vector<NodeId> placed;
  nodes_.for_each([&](Node& node) {
    drop_node(node, What::kContents);
    if (node.parent != nullptr) placed.push_back(node.id);
  });
  for (const auto id : placed) {
    Node* node = nodes_.find(id);
    if (node == nullptr || node->parent == nullptr) continue;
    const std::string name = node->name;
    Node& folder = *node->parent;
    if (node_at(folder, name) == node) continue;
    drop_entry(folder, name);
    nodes_.lost_name(node, folder, name);
  }
}

std::size_t Coherence::flush(std::string& messages) {
  std::size_t count = 0;
  std::unordered_set<NodeId> locked;  // folders whose look-ups are over when the guest comes to what follows
  const auto entry = [&](NodeId folder, std::string_view name) {
    append_entry(messages, folder, name);
    locked.insert(folder);
    ++count;
  };
  if (std::exchange(everything_, false)) disbelieve_everything();
  for (const auto& [folder, name] : entries_) entry(folder, name);
  entries_.clear();
  for (const auto& [id, what] : nodes_to_drop_) {
    const Node* node = nodes_.find(id);
    if (node != nullptr && !node->met && node->parent != nullptr && !locked.contains(node->parent->id)) {
      entry(node->parent->id, kNoName);
    }
  }
  for (const auto& [id, what] : std::exchange(nodes_to_drop_, {})) {
    Node* node = nodes_.find(id);
    if (node == nullptr) continue;
    if (what == What::kContents && node->is_file()) {
      // Looked at before the guest is told, so that what is written later counts as new.
      const auto fd = nodes_.descriptor(*node);
      const auto status = fd ? status_of((*fd)->get()) : std::unexpected(fd.error());
      node->invalidated_modified = status ? Told::of(*status).modified : -1;
      node->invalidated_size = status ? status->stx_size : 0;
    }
    append_inode(messages, id, what == What::kContents);
    ++count;
  }
  for (const auto& [folder, name] : std::exchange(changes_, {})) {
    const Node* node = nodes_.find(folder);
    if (node != nullptr) append_change(messages, *node, name);
  }
  return count;
}

}  // namespace sbx::files
