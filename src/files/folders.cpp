// Listing folders. A position is the host's own (d_off), kept by the guest; the host's kernel takes any number for one.
#include <dirent.h>
#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

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

// False if the entry does not fit into `room` bytes of payload.
bool add_listed(Reply& reply, std::size_t room, std::uint64_t inode, std::uint64_t next, std::uint32_t type,
                std::string_view name) {
  const auto size = FUSE_REC_ALIGN(FUSE_NAME_OFFSET + name.size());
  if (reply.payload() + size > room) return false;
  fuse_dirent entry{};
  entry.ino = inode;
  entry.off = next;
  entry.namelen = static_cast<std::uint32_t>(name.size());
  entry.type = type;
  reply.add_bytes({reinterpret_cast<const char*>(&entry), FUSE_NAME_OFFSET});
  reply.add_bytes(name);
  reply.pad_to_8();
  return true;
}

}  // namespace

int Dispatcher::op_opendir(const Request& request, Reply& reply) {
  if (handles_.full()) return ENFILE;
  if (request.header.nodeid == kSyntheticRoot) {
    const auto handle = handles_.add(kSyntheticRoot, HandleKind::kFolder, UniqueFd());
    if (!handle) return handle.error();
    reply.add(fuse_open_out{*handle, 0, 0});
    return 0;
  }
  const auto node = folder(request.header.nodeid, Intent::kLook);
  if (!node) return node.error();
  auto fd = reopen(node->get(), O_RDONLY | O_DIRECTORY | O_NONBLOCK);
  if (!fd) return fd.error();
  const auto handle = open_handle(*node->node, HandleKind::kFolder, std::move(*fd));
  if (!handle) return handle.error();
  reply.add(fuse_open_out{*handle, 0, 0});
  return 0;
}

int Dispatcher::read_synthetic_root(const fuse_read_in& in, Reply& reply) {
  const auto& workspaces = nodes_.workspaces();
  for (std::uint64_t i = in.offset; i < workspaces.size() + 2; ++i) {
    bool fits = false;
    if (i < 2) {
      fits = add_listed(reply, in.size, kSyntheticRoot, i + 1, DT_DIR, i == 0 ? "." : "..");
    } else {
      const auto& workspace = workspaces[i - 2];
      const auto inode = attributes_.inode(device_of(workspace.status), workspace.status.stx_ino);
      const auto type = S_ISDIR(workspace.status.stx_mode) ? DT_DIR : DT_REG;
      fits = add_listed(reply, in.size, inode, i + 1, type, std::to_string(workspace.index));
    }
    if (!fits) break;
  }
  return 0;
}

int Dispatcher::op_readdir(const Request& request, Reply& reply) {
  fuse_read_in in{};
  Body(request.body).take(in);
  if (in.size > kMaxWrite) return EINVAL;
  Handle* handle = handles_.find(in.fh, request.header.nodeid, HandleKind::kFolder);
  if (handle == nullptr) return EBADF;
  if (request.header.nodeid == kSyntheticRoot) return read_synthetic_root(in, reply);

  const Node* node = nodes_.find(request.header.nodeid);
  if (node == nullptr) return ESTALE;
  const int fd = handle->fd.get();
  const auto wanted = static_cast<std::int64_t>(in.offset);
  if (handle->position != wanted && ::lseek(fd, wanted, SEEK_SET) < 0) return errno;
  handle->position = wanted;
  alignas(8) char list[kListBuffer];
  const auto room = std::min<std::size_t>(in.size, sizeof(list));
  const long size = ::syscall(SYS_getdents64, fd, list, room);
  if (size < 0) return errno;
  for (long at = 0; at < size;) {
    HostEntry entry{};
    std::memcpy(&entry, list + at, kHostEntrySize);
    const std::string_view name(list + at + kHostEntrySize);
    // Where a workspace's ".." leads is not for the guest to know.
    const auto inode = node->root && name == ".." ? kSyntheticRoot : attributes_.inode(node->device, entry.inode);
    if (!add_listed(reply, in.size, inode, static_cast<std::uint64_t>(entry.next), entry.type, name)) {
      handle->position = -1;  // the fd is past what the guest has
      return 0;
    }
    handle->position = entry.next;
    at += entry.length;
  }
  return 0;
}

int Dispatcher::op_releasedir(const Request& request, Reply&) { return release(request, HandleKind::kFolder); }

int Dispatcher::op_fsyncdir(const Request& request, Reply&) { return sync(request, HandleKind::kFolder); }

}  // namespace sbx::files
