// Files that the guest has created and not closed yet, by handle: a slot and its generation, as with node ids. All
// other files are used by their node id alone (see OpenFiles). Thread safety: none.
#pragma once

#include <cstdint>
#include <deque>
#include <vector>

#include "files/confined.h"
#include "files/message.h"
#include "files/node_table.h"

namespace sbx::files {

struct Handle {
  std::uint64_t id = 0;  // never 0
  NodeId node = 0;
  SharedFd fd;
  bool used = false;
};

class HandleTable {
 public:
  explicit HandleTable(std::size_t limit) : limit_(limit) {}

  bool full() const { return free_.empty() && handles_.size() >= limit_; }
  // ENFILE beyond the limit.
  Outcome<std::uint64_t> add(NodeId node, UniqueFd fd);
  // Null unless the handle is open and of this node.
  Handle* find(std::uint64_t id, NodeId node);
  void remove(Handle& handle);
  void reset();
  std::size_t size() const { return handles_.size() - free_.size(); }

 private:
  std::size_t limit_;
  std::deque<Handle> handles_;
  std::vector<std::uint32_t> free_;
};

}  // namespace sbx::files
