// How a host file's attributes look to the guest.
//
// Owners: the server's own user and group are the guest's agent (1000:1000), root stays root, everyone else is nobody
// (65534). The guest mounts with default_permissions and so checks with these; the host's kernel checks again with the
// server's own credentials.
// Thread safety: none.
#pragma once

#include <sys/stat.h>

#include <cstdint>
#include <vector>

#include "files/message.h"

namespace sbx::files {

inline constexpr std::uint32_t kAgentId = 1000;
inline constexpr std::uint32_t kNobodyId = 65534;

class Attributes {
 public:
  Attributes();
  fuse_attr of(const struct statx& status);
  // The inode number that the guest sees; not 0. Files of several host file systems must not share one.
  std::uint64_t inode(dev_t device, std::uint64_t inode);
  std::uint32_t shown_user(std::uint32_t uid) const;
  std::uint32_t shown_group(std::uint32_t gid) const;

 private:
  std::uint32_t uid_;
  std::uint32_t gid_;
  std::vector<dev_t> devices_;
};

}  // namespace sbx::files
