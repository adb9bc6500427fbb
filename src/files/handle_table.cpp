#include "files/handle_table.h"

#include <cerrno>

namespace sbx::files {
namespace {
std::uint32_t slot_of(std::uint64_t id) { return static_cast<std::uint32_t>(id & 0xffffffffU); }
}  // namespace

Outcome<std::uint64_t> HandleTable::add(NodeId node, UniqueFd fd) {
  if (full()) return std::unexpected(ENFILE);
  if (free_.empty()) {
    free_.push_back(static_cast<std::uint32_t>(handles_.size()));
    handles_.emplace_back().id = (1ULL << 32U) | free_.back();
  }
  Handle& handle = handles_[free_.back()];
  free_.pop_back();
  handle.node = node;
  handle.fd = std::make_shared<const UniqueFd>(std::move(fd));
  handle.used = true;
  return handle.id;
}

Handle* HandleTable::find(std::uint64_t id, NodeId node) {
  const auto slot = slot_of(id);
  if (slot >= handles_.size()) return nullptr;
  Handle& handle = handles_[slot];
  return handle.used && handle.id == id && handle.node == node ? &handle : nullptr;
}

void HandleTable::remove(Handle& handle) {
  handle.used = false;
  handle.fd.reset();
  handle.id += 1ULL << 32U;
  free_.push_back(slot_of(handle.id));
}

void HandleTable::reset() {
  for (auto& handle : handles_) {
    if (handle.used) remove(handle);
  }
}

}  // namespace sbx::files
