// Operations on attributes: getattr, setattr, readlink, statfs.
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <climits>
#include <cstdint>

#include "files/dispatcher.h"

namespace sbx::files {

void Dispatcher::add_attributes(Reply& reply, std::chrono::milliseconds lifetime, const fuse_attr& attr) {
  fuse_attr_out out{};
  out.attr_valid = static_cast<std::uint64_t>(lifetime.count() / 1000);
  out.attr_valid_nsec = static_cast<std::uint32_t>(lifetime.count() % 1000 * 1'000'000);
  out.attr = attr;
  reply.add(out);
}

fuse_attr Dispatcher::synthetic_attributes() const {
  fuse_attr attr{};
  attr.ino = kSyntheticRoot;
  attr.mode = S_IFDIR | 0555;
  attr.nlink = 2;
  attr.blksize = 4096;
  return attr;
}

int Dispatcher::op_getattr(const Request& request, Reply& reply) {
  if (request.header.nodeid == kSyntheticRoot) {
    add_attributes(reply, limits_.cache, synthetic_attributes());
    return 0;
  }
  const auto node = target(request.header.nodeid, Intent::kLook);
  if (!node) return node.error();
  coherence_.cover(*node->node);
  const auto status = status_of(node->get());
  if (!status) return status.error();
  add_attributes(reply, coherence_.attribute_lifetime(*node->node, *status), attributes_.of(*status));
  return 0;
}

int Dispatcher::op_setattr(const Request& request, Reply& reply) {
  fuse_setattr_in in{};
  Body(request.body).take(in);
  const auto node = target(request.header.nodeid, Intent::kChange);
  if (!node) return node.error();
  const auto before = status_of(node->get());
  if (!before) return before.error();
  const auto* kind = (in.valid & FATTR_SIZE) != 0 ? "write" : "attributes";
  if (const int error = check_change(*node, kind)) return error;
  // The owner cannot change; saying who it already is is no change.
  if ((in.valid & FATTR_UID) != 0 && in.uid != attributes_.shown_user(before->stx_uid)) return EPERM;
  if ((in.valid & FATTR_GID) != 0 && in.gid != attributes_.shown_group(before->stx_gid)) return EPERM;
  if ((in.valid & FATTR_SIZE) != 0) {
    if (const int error = change_size(request, in, *node)) return error;
  }
  if ((in.valid & (FATTR_ATIME | FATTR_MTIME)) != 0) {
    if (const int error = change_times(in, *node)) return error;
  }
  // Last, since it may forbid the rest to a user without privileges.
  if ((in.valid & FATTR_MODE) != 0) {
    if (const int error = change_mode(*node, *before, in.mode)) return error;
  }
  const auto after = status_of(node->get());
  if (!after) return after.error();
  add_attributes(reply, coherence_.attribute_lifetime(*node->node, *after), attributes_.of(*after));
  return 0;
}

int Dispatcher::change_mode(const Target& node, const struct statx& now, std::uint32_t mode) {
  if (S_ISLNK(node.node->type)) return EOPNOTSUPP;
  mode_t wanted = mode & (node.node->is_folder() ? 01777U : 0777U);
  // A setgid folder of the user's stays one; the guest can neither set nor clear the bit.
  if (node.node->is_folder()) wanted |= now.stx_mode & S_ISGID;
  if (::fchmodat(AT_FDCWD, descriptor_path(node.get()).c_str(), wanted, 0) != 0) return errno;
  return 0;
}

int Dispatcher::change_size(const Request& request, const fuse_setattr_in& in, const Target& node) {
  if (!node.node->is_file()) return node.node->is_folder() ? EISDIR : EINVAL;
  if (in.size > INT64_MAX) return EFBIG;
  const auto size = static_cast<off_t>(in.size);
  if ((in.valid & FATTR_FH) != 0) {
    const auto fd = contents_of(request.header.nodeid, Access::kWrite);
    if (!fd) return fd.error();
    return ::ftruncate((*fd)->get(), size) == 0 ? 0 : errno;
  }
  return ::truncate(descriptor_path(node.get()).c_str(), size) == 0 ? 0 : errno;
}

int Dispatcher::change_times(const fuse_setattr_in& in, const Target& node) {
  constexpr std::uint32_t kSecond = 1'000'000'000;
  if (in.atimensec >= kSecond || in.mtimensec >= kSecond) return EINVAL;
  const auto pick = [&](std::uint32_t set, std::uint32_t now, std::uint64_t seconds, std::uint32_t nanoseconds) {
    if ((in.valid & set) == 0) return timespec{0, UTIME_OMIT};
    if ((in.valid & now) != 0) return timespec{0, UTIME_NOW};
    return timespec{static_cast<time_t>(seconds), static_cast<long>(nanoseconds)};
  };
  const std::array<timespec, 2> times{pick(FATTR_ATIME, FATTR_ATIME_NOW, in.atime, in.atimensec),
                                      pick(FATTR_MTIME, FATTR_MTIME_NOW, in.mtime, in.mtimensec)};
  return ::utimensat(node.get(), "", times.data(), AT_EMPTY_PATH) == 0 ? 0 : errno;
}

int Dispatcher::op_readlink(const Request& request, Reply& reply) {
  const auto node = target(request.header.nodeid, Intent::kLook);
  if (!node) return node.error();
  if (!S_ISLNK(node->node->type)) return EINVAL;
  const ssize_t size = ::readlinkat(node->get(), "", reply.extend(PATH_MAX), PATH_MAX);
  if (size < 0) return errno;
  reply.shrink(static_cast<std::size_t>(size));
  return 0;
}

int Dispatcher::op_statfs(const Request& request, Reply& reply) {
  fuse_statfs_out out{};
  out.st.bsize = out.st.frsize = 4096;
  out.st.namelen = kMaxName;
  if (request.header.nodeid != kSyntheticRoot) {
    const auto node = target(request.header.nodeid, Intent::kLook);
    if (!node) return node.error();
    struct statfs host {};
    if (::fstatfs(node->get(), &host) != 0) return errno;
    out.st.blocks = host.f_blocks;
    out.st.bfree = host.f_bfree;
    out.st.bavail = host.f_bavail;
    out.st.files = host.f_files;
    out.st.ffree = host.f_ffree;
    out.st.bsize = static_cast<std::uint32_t>(host.f_bsize);
    out.st.frsize = static_cast<std::uint32_t>(host.f_frsize);
  }
  reply.add(out);
  return 0;
}

}  // namespace sbx::files
