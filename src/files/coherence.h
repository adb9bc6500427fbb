// Coherence: lets the guest keep names, attributes and file contents without asking, and takes them back when they
// change on the host.
//
// The rule: what is handed out with a lifetime was looked at *after* a watch was set on it, so that whatever changes
// later makes an event; each event is compared with what the guest was told, and what is no longer true is invalidated
// (fuse_notify_inval_entry_out and _inode_out of linux/fuse.h). Comparing also tells the guest's own changes, which
// come back as events too, from the host's. Contents cannot be compared, so every write is taken for one of the host's.
//
// What a watch does not cover gets no lifetime at all: files with several links (a write through another name makes an
// event elsewhere), files whose name was lost, folders beyond the number of watches.
//
// In what order the guest's kernel takes invalidations and replies is not known: it may get an invalidation for an
// inode that the reply to a LOOKUP, on its way to another CPU or thread, is just about to make. But it holds a folder's
// lock during a look-up in it, and an invalidation of an entry takes that lock. So entries come first, an inode that
// the guest has not used yet is preceded by the invalidation of an entry that does not exist in its folder, and with
// that no invalidation is lost. (Attributes have a version in the guest's kernel and pages a lock, against the same
// races.)
//
// Programs in the guest that watch files (inotify) are told of the host's changes by messages of our own beside the
// invalidations (wire::kHostChanged), with the place of what has changed.
//
// Thread safety: none.
#pragma once

#include <chrono>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "files/host_watch.h"
#include "files/node_table.h"

namespace sbx::files {

class Coherence {
 public:
  struct Limits {
    std::chrono::milliseconds lifetime{0};  // 0: nothing is ever cached
    std::size_t watches = 1U << 16U;
    std::size_t changes = 1024;     // places in one flush that watching programs are told of; more are not told
    std::size_t names = 1U << 16U;  // that the guest was told are missing, or that a file has left
  };

  // Without `watch` nothing is cached. `access_changed` is called for a file whose attributes the host has changed.
  Coherence(NodeTable& nodes, std::optional<HostWatch> watch, Limits limits,
            std::function<void(const Node&)> access_changed);
  Coherence(const Coherence&) = delete;
  Coherence& operator=(const Coherence&) = delete;

  // Whether changes in this folder, from now on, will be noticed. Before looking at anything in it.
  bool cover(Node& folder);
  // How long the guest may believe in what it is told now:
  std::chrono::milliseconds entry_lifetime(const Node& folder) const;
  // that the folder has no such entry (also remembers that it was told),
  std::chrono::milliseconds missing_lifetime(Node& folder, const std::string& name);
  // and in these attributes of a node (also remembers them).
  std::chrono::milliseconds attribute_lifetime(Node& node, const struct statx& status);
  // The guest may have cached the folder's entries now.
  void listed(Node& folder) { folder.listed = cover(folder); }
  // The guest has made or moved a file to this place: whatever it was told of the name before is over. (Its kernel
  // holds the folder's lock meanwhile, so no look-up or listing is on its way. Were the name invalidated, the guest
  // would lose what it has cached below it, and a process its working directory.)
  void made(const Node& folder, const std::string& name);
  // What the guest must not be told of, by its place in its workspace.
  void hide(std::function<bool(std::string_view place)> hidden) { hidden_ = std::move(hidden); }
  // Names that are missing may be cached: guest kernels from 7.45 on (Linux 6.18) do not take their invalidation.
  void allow_missing(bool allowed) { missing_allowed_ = allowed; }
  // The guest was told that the file which it knew under this name is elsewhere, too.
  void left(Node& folder, const std::string& name);
  void forgotten(Node& node);
  void reset();

  // inotify's descriptor, or -1.
  int fd() const { return watch_ ? watch_->fd() : -1; }
  // Takes in all that has happened on the host so far.
  void drain();
  bool pending() const { return everything_ || !entries_.empty() || !nodes_to_drop_.empty(); }
  // Appends the waiting notifications to `messages`; returns how many there are. While a guest takes none they wait
  // here: at most one for each thing that it was told.
  std::size_t flush(std::string& messages);

  std::size_t watches() const { return by_watch_.size(); }

 private:
  struct Entry {
    NodeId folder;
    std::string name;
    bool operator==(const Entry&) const = default;
  };
  struct EntryHash {
    std::size_t operator()(const Entry& entry) const {
      return std::hash<std::string>()(entry.name) ^ entry.folder * 0x9e3779b97f4a7c15U;
    }
  };

  bool may_watch(const Node& node) const;
  void watched(Node& node, int watch);
  void cover_file(Node& file);
  bool remember_name(Node& folder, const std::string& name);
  bool take_name(const Node& folder, const std::string& name);

  void on_event(const HostWatch::Event& event);
  void on_node_event(Node& node, std::uint32_t mask);
  void on_entry_event(Node& folder, const std::string& name, std::uint32_t mask);
  void contents_changed(Node& node, std::uint32_t mask);
  bool as_told(Node& node);
  void names_changed(Node& folder, const std::string& name, std::uint32_t mask);
  Node* node_at(Node& folder, const std::string& name);

  // For programs that watch: the host has changed what is at this place, unless it is the echo of the guest's own
  // doing.
  void changed(const Node& folder, const std::string& name, const Node* node);
  void append_change(std::string& messages, const Node& folder, std::string_view name);

  enum class What { kAttributes, kContents };
  void drop_entry(const Node& folder, const std::string& name);
  void drop_node(Node& node, What what);
  void disbelieve_everything();

  NodeTable& nodes_;
  std::optional<HostWatch> watch_;
  Limits limits_;
  std::function<void(const Node&)> access_changed_;
  std::function<bool(std::string_view)> hidden_ = [](std::string_view) { return false; };
  bool missing_allowed_ = true;
  std::unordered_map<int, std::vector<NodeId>> by_watch_;
  std::unordered_map<NodeId, std::unordered_set<std::string>> names_;
  std::size_t names_count_ = 0;
  std::unordered_set<Entry, EntryHash> entries_;
  std::unordered_set<Entry, EntryHash> changes_;
  std::unordered_map<NodeId, What> nodes_to_drop_;
  bool everything_ = false;  // events were lost
};

}  // namespace sbx::files
