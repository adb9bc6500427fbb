// Files and folders that the guest has open, by handle: a slot and its generation, as with node ids.
// Thread safety: none.
#pragma once

#include <cstdint>
#include <deque>
#include <vector>

#include "base/unique_fd.h"
#include "files/message.h"
#include "files/node_table.h"

namespace sbx::files {

enum class HandleKind { kFile, kFolder };

struct Handle {
  std::uint64_t id = 0;
  NodeId node = 0;
  HandleKind kind = HandleKind::kFile;
  UniqueFd fd;                 // invalid for the synthetic root
  std::int64_t position = -1;  // of a folder's fd, if known
  bool used = false;
};

class HandleTable {
 public:
  explicit HandleTable(std::size_t limit) : limit_(limit) {}

  bool full() const { return free_.empty() && handles_.size() >= limit_; }
  // ENFILE beyond the limit.
  Outcome<std::uint64_t> add(NodeId node, HandleKind kind, UniqueFd fd);
  // Null unless the handle is open, of this kind and of this node.
  Handle* find(std::uint64_t id, NodeId node, HandleKind kind);
  void remove(Handle& handle);
  void reset();
  std::size_t size() const { return handles_.size() - free_.size(); }

 private:
  std::size_t limit_;
  std::deque<Handle> handles_;
  std::vector<std::uint32_t> free_;
};

}  // namespace sbx::files
