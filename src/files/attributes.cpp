#include "files/attributes.h"

#include <unistd.h>

#include <algorithm>

#include "files/confined.h"

namespace sbx::files {

Attributes::Attributes() : uid_(::geteuid()), gid_(::getegid()) {}

std::uint32_t Attributes::shown_user(std::uint32_t uid) const {
  if (uid == uid_) return kAgentId;
  return uid == 0 ? 0 : kNobodyId;
}

std::uint32_t Attributes::shown_group(std::uint32_t gid) const {
  if (gid == gid_) return kAgentId;
  return gid == 0 ? 0 : kNobodyId;
}

std::uint64_t Attributes::inode(dev_t device, std::uint64_t inode) {
  auto found = std::find(devices_.begin(), devices_.end(), device);
  if (found == devices_.end() && devices_.size() < 255) found = devices_.insert(devices_.end(), device);
  const auto number = inode ^ static_cast<std::uint64_t>(found - devices_.begin()) << 56U;
  return number == 0 ? 1 : number;
}

fuse_attr Attributes::of(const struct statx& status) {
  fuse_attr attr{};
  attr.ino = inode(device_of(status), status.stx_ino);
  attr.size = status.stx_size;
  attr.blocks = status.stx_blocks;
  attr.atime = static_cast<std::uint64_t>(status.stx_atime.tv_sec);
  attr.mtime = static_cast<std::uint64_t>(status.stx_mtime.tv_sec);
  attr.ctime = static_cast<std::uint64_t>(status.stx_ctime.tv_sec);
  attr.atimensec = status.stx_atime.tv_nsec;
  attr.mtimensec = status.stx_mtime.tv_nsec;
  attr.ctimensec = status.stx_ctime.tv_nsec;
  attr.mode = status.stx_mode;
  // A host's setuid program is an ordinary one in the guest; a folder's setgid bit only hands its group on.
  if (!S_ISDIR(status.stx_mode)) attr.mode &= ~static_cast<std::uint32_t>(S_ISUID | S_ISGID);
  attr.nlink = status.stx_nlink;
  attr.uid = shown_user(status.stx_uid);
  attr.gid = shown_group(status.stx_gid);
  attr.blksize = status.stx_blksize;
  return attr;  // rdev stays 0: a device node of the host means nothing in the guest
}

}  // namespace sbx::files
