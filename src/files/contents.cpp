// Operations on the contents of regular files.
#include <fcntl.h>
#include <linux/falloc.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>

#include "files/dispatcher.h"

namespace sbx::files {
namespace {

constexpr std::uint64_t kMaxOffset = INT64_MAX;
// Of one COPY_FILE_RANGE: the guest asks again for the rest, and others get their turn.
constexpr std::uint64_t kMaxCopy = 64U << 20U;

// The only flags of the guest's open(2) that reach the host. O_APPEND is dealt with at each write.
int host_flags(std::uint32_t guest) { return static_cast<int>(guest & (O_ACCMODE | O_TRUNC)) | O_NONBLOCK; }

bool valid_access_mode(std::uint32_t flags) { return (flags & O_ACCMODE) != O_ACCMODE; }

bool changes(std::uint32_t flags) { return (flags & O_ACCMODE) != O_RDONLY || (flags & O_TRUNC) != 0; }

}  // namespace

Outcome<std::uint64_t> Dispatcher::open_handle(Node& node, HandleKind kind, UniqueFd fd) {
  const auto handle = handles_.add(node.id, kind, std::move(fd));
  if (handle) nodes_.add_handle(node);
  return handle;
}

int Dispatcher::release(const Request& request, HandleKind kind) {
  fuse_release_in in{};
  Body(request.body).take(in);
  Handle* handle = handles_.find(in.fh, request.header.nodeid, kind);
  if (handle == nullptr) return EBADF;
  handles_.remove(*handle);
  if (Node* node = nodes_.find(request.header.nodeid)) nodes_.drop_handle(*node);
  return 0;
}

int Dispatcher::sync(const Request& request, HandleKind kind) {
  fuse_fsync_in in{};
  Body(request.body).take(in);
  Handle* handle = handles_.find(in.fh, request.header.nodeid, kind);
  if (handle == nullptr) return EBADF;
  if (!handle->fd.valid()) return 0;
  const bool data_only = (in.fsync_flags & FUSE_FSYNC_FDATASYNC) != 0;
  return (data_only ? ::fdatasync(handle->fd.get()) : ::fsync(handle->fd.get())) == 0 ? 0 : errno;
}

int Dispatcher::op_open(const Request& request, Reply& reply) {
  fuse_open_in in{};
  Body(request.body).take(in);
  if (!valid_access_mode(in.flags)) return EINVAL;
  const auto node = target(request.header.nodeid, changes(in.flags) ? Intent::kChange : Intent::kLook);
  if (!node) return node.error();
  if (node->node->is_folder()) return EISDIR;
  if (!node->node->is_file()) return S_ISLNK(node->node->type) ? ELOOP : ENXIO;
  if (handles_.full()) return ENFILE;
  auto fd = reopen(node->get(), host_flags(in.flags));
  if (!fd) return fd.error();
  const auto handle = open_handle(*node->node, HandleKind::kFile, std::move(*fd));
  if (!handle) return handle.error();
  reply.add(fuse_open_out{*handle, 0, 0});
  return 0;
}

int Dispatcher::op_create(const Request& request, Reply& reply) {
  Body body(request.body);
  fuse_create_in in{};
  body.take(in);
  std::string_view text;
  if (!body.take_string(text) || !body.rest().empty() || !valid_access_mode(in.flags)) return EINVAL;
  if (const int error = check_name(text)) return error;
  const std::string name(text);
  const auto parent = folder(request.header.nodeid, Intent::kChange);
  if (!parent) return parent.error();
  if (handles_.full()) return ENFILE;

  auto fd = create_child(parent->get(), name, static_cast<int>(in.flags), in.mode);
  UniqueFd path_fd;
  if (fd) {
    auto again = reopen(fd->get(), O_PATH);
    if (!again) return again.error();
    path_fd = std::move(*again);
  } else if (fd.error() == EEXIST && (in.flags & O_EXCL) == 0) {
    // The host made it in the meantime, and maybe not as a regular file.
    auto found = open_child(parent->get(), name);
    if (!found) return found.error();
    path_fd = std::move(*found);
  } else {
    return fd.error();
  }
  const auto status = status_of(path_fd.get());
  if (!status) return status.error();
  if (!fd) {
    if (!S_ISREG(status->stx_mode)) return S_ISDIR(status->stx_mode) ? EISDIR : ENXIO;
    fd = reopen(path_fd.get(), host_flags(in.flags));
    if (!fd) return fd.error();
  }
  const auto node = nodes_.adopt(*parent->node, name, std::move(path_fd), *status);
  if (!node) return node.error();
  const auto handle = open_handle(**node, HandleKind::kFile, std::move(*fd));
  if (!handle) {
    nodes_.forget((*node)->id, 1);
    return handle.error();
  }
  add_entry(reply, **node, *status);
  reply.add(fuse_open_out{*handle, 0, 0});
  return 0;
}

int Dispatcher::op_read(const Request& request, Reply& reply) {
  fuse_read_in in{};
  Body(request.body).take(in);
  if (in.size > kMaxWrite || in.offset > kMaxOffset) return EINVAL;
  const Handle* handle = handles_.find(in.fh, request.header.nodeid, HandleKind::kFile);
  if (handle == nullptr) return EBADF;
  // Short only at the end of the file: the guest takes a short read for that, and remembers.
  char* into = reply.extend(in.size);
  std::size_t filled = 0;
  while (filled < in.size) {
    const ssize_t got =
        ::pread(handle->fd.get(), into + filled, in.size - filled, static_cast<off_t>(in.offset + filled));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return errno;
    if (got == 0) break;
    filled += static_cast<std::size_t>(got);
  }
  reply.shrink(filled);
  return 0;
}

int Dispatcher::op_write(const Request& request, Reply& reply) {
  Body body(request.body);
  fuse_write_in in{};
  body.take(in);
  const auto data = body.rest();
  if (in.size > kMaxWrite || in.size != data.size() || in.offset > kMaxOffset - in.size) return EINVAL;
  const Handle* handle = handles_.find(in.fh, request.header.nodeid, HandleKind::kFile);
  if (handle == nullptr) return EBADF;
  // Appending is done by the host's kernel, which knows where the end is now. Pages of a mapping (WRITE_CACHE) have
  // their place, whatever the handle that the guest's kernel sends them by.
  const bool append = (in.flags & O_APPEND) != 0 && (in.write_flags & FUSE_WRITE_CACHE) == 0;
  std::size_t done = 0;
  while (done < data.size()) {
    const iovec piece{const_cast<char*>(data.data()) + done, data.size() - done};
    const ssize_t wrote =
        ::pwritev2(handle->fd.get(), &piece, 1, static_cast<off_t>(in.offset + done), append ? RWF_APPEND : 0);
    if (wrote < 0 && errno == EINTR) continue;
    if (wrote < 0 && done == 0) return errno;
    if (wrote <= 0) break;  // what was written counts; the guest meets the error when it goes on
    done += static_cast<std::size_t>(wrote);
  }
  reply.add(fuse_write_out{static_cast<std::uint32_t>(done), 0});
  return 0;
}

int Dispatcher::op_release(const Request& request, Reply&) { return release(request, HandleKind::kFile); }

int Dispatcher::op_fsync(const Request& request, Reply&) { return sync(request, HandleKind::kFile); }

int Dispatcher::op_fallocate(const Request& request, Reply&) {
  fuse_fallocate_in in{};
  Body(request.body).take(in);
  constexpr std::uint32_t kHole = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
  constexpr std::uint32_t kZero = FALLOC_FL_ZERO_RANGE;
  const bool known = in.mode == 0 || in.mode == FALLOC_FL_KEEP_SIZE || in.mode == kHole || in.mode == kZero ||
                     in.mode == (kZero | FALLOC_FL_KEEP_SIZE);
  if (!known) return EOPNOTSUPP;
  if (in.length == 0 || in.offset > kMaxOffset || in.length > kMaxOffset - in.offset) return EINVAL;
  const Handle* handle = handles_.find(in.fh, request.header.nodeid, HandleKind::kFile);
  if (handle == nullptr) return EBADF;
  const int status = ::fallocate(handle->fd.get(), static_cast<int>(in.mode), static_cast<off_t>(in.offset),
                                 static_cast<off_t>(in.length));
  return status == 0 ? 0 : errno;
}

int Dispatcher::op_lseek(const Request& request, Reply& reply) {
  fuse_lseek_in in{};
  Body(request.body).take(in);
  if (in.whence != SEEK_DATA && in.whence != SEEK_HOLE) return EINVAL;
  if (in.offset > kMaxOffset) return ENXIO;
  const Handle* handle = handles_.find(in.fh, request.header.nodeid, HandleKind::kFile);
  if (handle == nullptr) return EBADF;
  const off_t at = ::lseek(handle->fd.get(), static_cast<off_t>(in.offset), static_cast<int>(in.whence));
  if (at < 0) return errno;
  reply.add(fuse_lseek_out{static_cast<std::uint64_t>(at)});
  return 0;
}

int Dispatcher::op_copy_file_range(const Request& request, Reply& reply) {
  fuse_copy_file_range_in in{};
  Body(request.body).take(in);
  if (in.flags != 0 || in.off_in > kMaxOffset || in.off_out > kMaxOffset) return EINVAL;
  const Handle* from = handles_.find(in.fh_in, request.header.nodeid, HandleKind::kFile);
  const Handle* to = handles_.find(in.fh_out, in.nodeid_out, HandleKind::kFile);
  if (from == nullptr || to == nullptr) return EBADF;
  auto offset_in = static_cast<off_t>(in.off_in);
  auto offset_out = static_cast<off_t>(in.off_out);
  const ssize_t copied = ::copy_file_range(from->fd.get(), &offset_in, to->fd.get(), &offset_out,
                                           static_cast<std::size_t>(std::min(in.len, kMaxCopy)), 0);
  if (copied < 0) return errno == EXDEV ? EOPNOTSUPP : errno;
  reply.add(fuse_write_out{static_cast<std::uint32_t>(copied), 0});
  return 0;
}

}  // namespace sbx::files
