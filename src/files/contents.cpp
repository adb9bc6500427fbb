// Operations on the contents of regular files.
#include <fcntl.h>
#include <linux/falloc.h>
#include <sys/stat.h>
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
// Up to here handing it to another thread costs more than it may save.
constexpr std::size_t kSmallWrite = 64U << 10U;

// The only flags of the guest's open(2) that reach the host. O_APPEND is dealt with at each write.
int host_flags(std::uint32_t guest) { return static_cast<int>(guest & (O_ACCMODE | O_TRUNC)) | O_NONBLOCK; }

bool valid_access_mode(std::uint32_t flags) { return (flags & O_ACCMODE) != O_ACCMODE; }

// Fills `into` from `offset` on; fewer bytes only at the end of the file: the guest takes a short read for that, and
// remembers. -1 and errno on failure.
ssize_t read_fully(int fd, char* into, std::size_t size, std::uint64_t offset) {
  std::size_t filled = 0;
  while (filled < size) {
    const ssize_t got = ::pread(fd, into + filled, size - filled, static_cast<off_t>(offset + filled));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return -1;
    if (got == 0) break;
    filled += static_cast<std::size_t>(got);
  }
  return static_cast<ssize_t>(filled);
}

// Whether the host had all of it in memory; then it is in `into`, `size` shortened at the end of the file.
bool read_at_hand(int fd, char* into, std::uint32_t& size, std::uint64_t offset) {
  const iovec piece{into, size};
  const ssize_t got = ::preadv2(fd, &piece, 1, static_cast<off_t>(offset), RWF_NOWAIT);
  if (got < 0) return false;
  if (static_cast<std::uint32_t>(got) < size) {
    struct stat status {};
    if (::fstat(fd, &status) != 0 ||
        offset + static_cast<std::uint64_t>(got) < static_cast<std::uint64_t>(status.st_size)) {
      return false;
    }
  }
  size = static_cast<std::uint32_t>(got);
  return true;
}

int write_fully(int fd, std::string_view data, std::uint64_t offset, bool append, Reply& reply) {
  std::size_t done = 0;
  while (done < data.size()) {
    const iovec piece{const_cast<char*>(data.data()) + done, data.size() - done};
    const ssize_t wrote = ::pwritev2(fd, &piece, 1, static_cast<off_t>(offset + done), append ? RWF_APPEND : 0);
    if (wrote < 0 && errno == EINTR) continue;
    if (wrote < 0 && done == 0) return errno;
    if (wrote <= 0) break;  // what was written counts; the guest meets the error when it goes on
    done += static_cast<std::size_t>(wrote);
  }
  reply.add(fuse_write_out{static_cast<std::uint32_t>(done), 0});
  return 0;
}

}  // namespace

Outcome<SharedFd> Dispatcher::contents_of(NodeId id, Access access) {
  const auto node = target(id, access == Access::kRead ? Intent::kLook : Intent::kChange);
  if (!node) return std::unexpected(node.error());
  // Whatever is no regular file may block or act on being opened.
  if (!node->node->is_file()) return std::unexpected(node->node->is_folder() ? EISDIR : ENXIO);
  if (access == Access::kRead) return files_.for_reading(id, node->get());
  auto fd = files_.for_writing(id, node->get());
  if (!fd || access == Access::kSync) return fd;
  if (const int error = check_change(*node, "write")) return std::unexpected(error);
  return fd;
}

int Dispatcher::perform(Work work, Reply& reply) {
  if (later_ == nullptr) return work(reply);
  later_->emplace().unique = unique_;
  (*later_)->work = std::move(work);
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
  coherence_.cover(*parent->node);

  if (const int error = check_make(*parent, name, S_IFREG)) return error;
  auto fd = create_child(parent->get(), name, static_cast<int>(in.flags), in.mode);
  const bool made = fd.has_value();
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
  auto status = status_of(path_fd.get());
  if (!status) return status.error();
  if (!fd) {
    if (!S_ISREG(status->stx_mode)) return S_ISDIR(status->stx_mode) ? EISDIR : ENXIO;
    if ((in.flags & (O_ACCMODE | O_TRUNC)) != O_RDONLY) {
      const auto place = place_in(*parent, name);
      if (!place) return place.error();
      if (const int error = check_change(Change{parent->node, path_fd.get(), *place, true}, "write")) return error;
    }
    fd = reopen(path_fd.get(), host_flags(in.flags));
    if (!fd) return fd.error();
    status = status_of(path_fd.get());  // it may have been truncated
    if (!status) return status.error();
  }
  const auto node = nodes_.adopt(*parent->node, name, std::move(path_fd), *status);
  if (!node) return node.error();
  // Its mode may not let us open it again.
  files_.created((*node)->id, std::move(*fd), static_cast<int>(in.flags & O_ACCMODE),
                 (status->stx_mode & S_IWUSR) != 0);
  coherence_.made(*parent->node, name);
  if (made) tell_made(*parent, name);
  add_entry(reply, parent->node, **node, *status);
  reply.add(fuse_open_out{0, FOPEN_KEEP_CACHE, 0});
  return 0;
}

int Dispatcher::op_read(const Request& request, Reply& reply) {
  fuse_read_in in{};
  Body(request.body).take(in);
  if (in.size > kMaxWrite || in.offset > kMaxOffset) return EINVAL;
  const auto fd = contents_of(request.header.nodeid, Access::kRead);
  if (!fd) return fd.error();
  std::uint32_t size = in.size;
  if (read_at_hand((*fd)->get(), reply.extend(in.size), size, in.offset)) {
    reply.shrink(size);
    return 0;
  }
  reply.shrink(0);
  return perform(
      [fd = *fd, in](Reply& filled) {
        const ssize_t got = read_fully(fd->get(), filled.extend(in.size), in.size, in.offset);
        if (got < 0) return errno;
        filled.shrink(static_cast<std::size_t>(got));
        return 0;
      },
      reply);
}

int Dispatcher::op_write(const Request& request, Reply& reply) {
  Body body(request.body);
  fuse_write_in in{};
  body.take(in);
  const auto data = body.rest();
  if (in.size > kMaxWrite || in.size != data.size() || in.offset > kMaxOffset - in.size) return EINVAL;
  const auto fd = contents_of(request.header.nodeid, Access::kWrite);
  if (!fd) return fd.error();
  // Appending is done by the host's kernel, which knows where the end is now. Pages of a mapping (WRITE_CACHE) have
  // their place, whatever the handle that the guest's kernel sends them by.
  const bool append = (in.flags & O_APPEND) != 0 && (in.write_flags & FUSE_WRITE_CACHE) == 0;
  if (data.size() <= kSmallWrite) return write_fully((*fd)->get(), data, in.offset, append, reply);
  return perform([fd = *fd, data, offset = in.offset,
                  append](Reply& filled) { return write_fully(fd->get(), data, offset, append, filled); },
                 reply);
}

int Dispatcher::op_fsync(const Request& request, Reply& reply) {
  fuse_fsync_in in{};
  Body(request.body).take(in);
  auto fd = contents_of(request.header.nodeid, Access::kRead);
  // A file that may be written and not read.
  if (!fd && fd.error() == EACCES) fd = contents_of(request.header.nodeid, Access::kSync);
  if (!fd) return fd.error();
  const bool data_only = (in.fsync_flags & FUSE_FSYNC_FDATASYNC) != 0;
  return perform([fd = *fd, data_only](
                     Reply&) { return (data_only ? ::fdatasync(fd->get()) : ::fsync(fd->get())) == 0 ? 0 : errno; },
                 reply);
}

int Dispatcher::op_fallocate(const Request& request, Reply& reply) {
  fuse_fallocate_in in{};
  Body(request.body).take(in);
  constexpr std::uint32_t kHole = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
  constexpr std::uint32_t kZero = FALLOC_FL_ZERO_RANGE;
  const bool known = in.mode == 0 || in.mode == FALLOC_FL_KEEP_SIZE || in.mode == kHole || in.mode == kZero ||
                     in.mode == (kZero | FALLOC_FL_KEEP_SIZE);
  if (!known) return EOPNOTSUPP;
  if (in.length == 0 || in.offset > kMaxOffset || in.length > kMaxOffset - in.offset) return EINVAL;
  const auto fd = contents_of(request.header.nodeid, Access::kWrite);
  if (!fd) return fd.error();
  return perform(
      [fd = *fd, in](Reply&) {
        const int status = ::fallocate(fd->get(), static_cast<int>(in.mode), static_cast<off_t>(in.offset),
                                       static_cast<off_t>(in.length));
        return status == 0 ? 0 : errno;
      },
      reply);
}

int Dispatcher::op_lseek(const Request& request, Reply& reply) {
  fuse_lseek_in in{};
  Body(request.body).take(in);
  if (in.whence != SEEK_DATA && in.whence != SEEK_HOLE) return EINVAL;
  if (in.offset > kMaxOffset) return ENXIO;
  const auto fd = contents_of(request.header.nodeid, Access::kRead);
  if (!fd) return fd.error();
  const off_t at = ::lseek((*fd)->get(), static_cast<off_t>(in.offset), static_cast<int>(in.whence));
  if (at < 0) return errno;
  reply.add(fuse_lseek_out{static_cast<std::uint64_t>(at)});
  return 0;
}

int Dispatcher::op_copy_file_range(const Request& request, Reply& reply) {
  fuse_copy_file_range_in in{};
  Body(request.body).take(in);
  if (in.flags != 0 || in.off_in > kMaxOffset || in.off_out > kMaxOffset) return EINVAL;
  const auto from = contents_of(request.header.nodeid, Access::kRead);
  if (!from) return from.error();
  const auto to = contents_of(in.nodeid_out, Access::kWrite);
  if (!to) return to.error();
  return perform(
      [from = *from, to = *to, in](Reply& filled) {
        auto offset_in = static_cast<off_t>(in.off_in);
        auto offset_out = static_cast<off_t>(in.off_out);
        const ssize_t copied = ::copy_file_range(from->get(), &offset_in, to->get(), &offset_out,
                                                 static_cast<std::size_t>(std::min(in.len, kMaxCopy)), 0);
        if (copied < 0) return errno == EXDEV ? EOPNOTSUPP : errno;
        filled.add(fuse_write_out{static_cast<std::uint32_t>(copied), 0});
        return 0;
      },
      reply);
}

}  // namespace sbx::files
