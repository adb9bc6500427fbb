// Listing folders. A position is the host's own (d_off), kept by the guest; the host's kernel takes any number for one.
#include <dirent.h>
#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>

#include "files/dispatcher.h"

namespace sbx::files {
namespace {

// One getdents64(2) record's fixed part (the type that the man page gives).
struct HostEntry {
  std::uint64_t inode;
  std::int64_t next;
  std::uint16_t length;
  std::uint8_t type;
};
constexpr std::size_t kHostEntrySize = 19;
constexpr std::size_t kListBuffer = 32U << 10U;

std::size_t listed_size(std::string_view name, bool with_attributes) {
  return FUSE_REC_ALIGN((with_attributes ? FUSE_NAME_OFFSET_DIRENTPLUS : FUSE_NAME_OFFSET) + name.size());
}

void add_listed(Reply& reply, std::uint64_t inode, std::uint64_t next, std::uint32_t type, std::string_view name) {
  fuse_dirent entry{};
  entry.ino = inode;
  entry.off = next;
  entry.namelen = static_cast<std::uint32_t>(name.size());
  entry.type = type;
  reply.add_bytes({reinterpret_cast<const char*>(&entry), FUSE_NAME_OFFSET});
  reply.add_bytes(name);
  reply.pad_to_8();
}

}  // namespace

int Dispatcher::read_synthetic_root(const fuse_read_in& in, bool with_attributes, Reply& reply) {
  const auto& workspaces = nodes_.workspaces();
  for (std::uint64_t i = in.offset; i < workspaces.size() + 2; ++i) {
    std::string name = i == 0 ? "." : "..";
    auto inode = kSyntheticRoot;
    std::uint32_t type = DT_DIR;
    if (i >= 2) {
      const auto& workspace = workspaces[i - 2];
      name = std::to_string(workspace.index);
      inode = attributes_.inode(device_of(workspace.status), workspace.status.stx_ino);
      type = S_ISDIR(workspace.status.stx_mode) ? DT_DIR : DT_REG;
    }
    if (reply.payload() + listed_size(name, with_attributes) > in.size) break;
    if (with_attributes) reply.add(fuse_entry_out{});
    add_listed(reply, inode, i + 1, type, name);
  }
  return 0;
}

int Dispatcher::list(const Request& request, bool with_attributes, Reply& reply) {
  fuse_read_in in{};
  Body(request.body).take(in);
  if (in.size > kMaxWrite) return EINVAL;
  if (request.header.nodeid == kSyntheticRoot) return read_synthetic_root(in, with_attributes, reply);
  const auto parent = folder(request.header.nodeid, Intent::kLook);
  if (!parent) return parent.error();
  coherence_.listed(*parent->node);
  const auto wanted = static_cast<std::int64_t>(in.offset);
  const auto found = listings_.at(request.header.nodeid, parent->get(), wanted);
  if (!found) return found.error();
  auto& listing = **found;
  alignas(8) char list[kListBuffer];
  // With attributes an entry is several times as long as the host's.
  const auto room = std::min<std::size_t>(with_attributes ? std::max(in.size / 3, 1024U) : in.size, sizeof(list));
  const long size = ::syscall(SYS_getdents64, listing.fd.get(), list, room);
  if (size < 0) return errno;
  std::string place;  // with a '/' behind it, to look for what is hidden
  if (guard_.hides_anything()) {
    auto here = place_of(*parent->node, parent->get());
    if (!here) return here.error();
    place = here->empty() ? "" : *here + "/";
  }
  listing.position = wanted;
  for (long at = 0; at < size;) {
    HostEntry entry{};
    std::memcpy(&entry, list + at, kHostEntrySize);
    const std::string_view name(list + at + kHostEntrySize);
    if (reply.payload() + listed_size(name, with_attributes) > in.size) {
      listing.position = -1;  // the descriptor is past what the guest has
      return 0;
    }
    if (guard_.hides_anything() && name != "." && name != ".." && guard_.hides(place + std::string(name))) {
      listing.position = entry.next;
      at += entry.length;
      continue;
    }
    // Where a workspace's ".." leads is not for the guest to know.
    auto inode =
        parent->node->root && name == ".." ? kSyntheticRoot : attributes_.inode(parent->node->device, entry.inode);
    if (with_attributes) {
      struct statx status {};
      const bool itself = name == "." || name == "..";
      const auto node = itself ? std::unexpected(ENOENT) : adopt_child(*parent, std::string(name), status);
      if (node) {
        add_entry(reply, parent->node, **node, status);
        inode = attributes_.of(status).ino;
      } else {
        reply.add(fuse_entry_out{});  // node 0: only the name
      }
    }
    add_listed(reply, inode, static_cast<std::uint64_t>(entry.next), entry.type, name);
    listing.position = entry.next;
    at += entry.length;
  }
  return 0;
}

int Dispatcher::op_readdir(const Request& request, Reply& reply) { return list(request, false, reply); }

int Dispatcher::op_readdirplus(const Request& request, Reply& reply) { return list(request, true, reply); }

// There is no handle: the folder is opened anew.
int Dispatcher::op_fsyncdir(const Request& request, Reply& reply) {
  fuse_fsync_in in{};
  Body(request.body).take(in);
  if (request.header.nodeid == kSyntheticRoot) return 0;
  const auto node = folder(request.header.nodeid, Intent::kLook);
  if (!node) return node.error();
  auto fd = reopen(node->get(), O_RDONLY | O_DIRECTORY | O_NONBLOCK);
  if (!fd) return fd.error();
  const bool data_only = (in.fsync_flags & FUSE_FSYNC_FDATASYNC) != 0;
  return perform([fd = std::make_shared<const UniqueFd>(std::move(*fd)), data_only](
                     Reply&) { return (data_only ? ::fdatasync(fd->get()) : ::fsync(fd->get())) == 0 ? 0 : errno; },
                 reply);
}

}  // namespace sbx::files
