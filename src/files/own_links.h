// Hard links that the guest has made in this session. A file with others as well may also lie outside of the workspace,
// and is read-only to the guest.
// Thread safety: none.
#pragma once

#include <sys/stat.h>

#include <cstdint>
#include <unordered_map>

namespace sbx::files {

class OwnLinks {
 public:
  explicit OwnLinks(std::size_t limit = 1U << 18U) : limit_(limit) {}

  // Whether every name of a file with this status that the server does not know of was made by the guest; `named`: the
  // server knows of one. A file without any name is the guest's own.
  bool cover(const struct statx& status, bool named);
  // The guest has given one more name to, or taken one from, the file that had this status before. `named`: as above,
  // before; the only name that a file has left may be one outside.
  void added(const struct statx& before, bool named);
  void removed(const struct statx& before);
  void reset() { files_.clear(); }

 private:
  struct File {
    std::int64_t birth = 0;
    std::uint32_t links = 0;
  };
  struct Key {
    std::uint64_t device;
    std::uint64_t inode;
    bool operator==(const Key&) const = default;
  };
  struct KeyHash {
    std::size_t operator()(const Key& key) const { return key.inode * 0x9e3779b97f4a7c15U ^ key.device; }
  };
  // How many names the guest has made, as far as they can all be there still.
  std::uint32_t known(const struct statx& status);

  std::size_t limit_;
  std::unordered_map<Key, File, KeyHash> files_;
};

}  // namespace sbx::files
