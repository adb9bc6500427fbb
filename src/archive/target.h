// Target: the folder that an archive is unpacked into, and the only system calls by which it is written. Every path is
// a list of names below the folder; no symbolic link and no mount point's ".." is ever followed (openat2(2),
// RESOLVE_BENEATH and RESOLVE_NO_SYMLINKS), and no file that was there before is written to: it is replaced.
// Thread safety: none.
#pragma once

#include <sys/stat.h>

#include <set>
#include <string>
#include <utility>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"

namespace sbx::archive {

// Names without '/', none of them empty, "." or "..". Empty: the folder itself.
using MemberPath = std::vector<std::string>;
std::string to_string(const MemberPath& path);

class Target {
 public:
  // `folder` stays the caller's.
  explicit Target(int folder) : folder_(folder) {}

  struct Attributes {
    mode_t mode = 0;  // permission bits; set-id and sticky bits are dropped
    timespec modified{};
  };

  // One that is there already is taken as it is, and keeps its attributes. Those of a new one are set by finish(), so
  // that a folder without write permission can be filled.
  Result<void> make_folder(const MemberPath& path, const Attributes& attributes);
  // A new, empty file, open for writing; what had the name is gone. Folders above it are made as needed.
  Result<UniqueFd> make_file(const MemberPath& path);
  Result<void> finish_file(int file, const Attributes& attributes, off_t size);
  Result<void> make_symlink(const MemberPath& path, const std::string& target, const Attributes& attributes);
  // kDenied unless `existing` is a file that this object has made.
  Result<void> make_hard_link(const MemberPath& path, const MemberPath& existing);
  // Sets what was left to set. Once, at the end.
  Result<void> finish();

 private:
  Result<int> parent_of(const MemberPath& path);  // an O_PATH fd that parent_ owns
  Result<UniqueFd> open_folder(const MemberPath& path, int flags) const;
  static Result<void> clear(int parent, const MemberPath& path);

  int folder_;
  MemberPath parent_path_;
  UniqueFd parent_;
  std::set<std::pair<dev_t, ino_t>> made_;
  std::vector<std::pair<MemberPath, Attributes>> folders_;
};

}  // namespace sbx::archive
