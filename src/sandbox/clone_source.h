// The repository that a clone-mode sandbox is made from, found by reading files: git, which runs what a repository's
// configuration says, is run by the user's CLI and in the sandbox, never by the daemon.
//
// A sandbox may have written to this repository before (a direct mount), so a `.git` file is believed only if what it
// names says the same: else it could have another repository of the user's mounted into the next sandbox.
#pragma once

#include <filesystem>

#include "base/result.h"

namespace sbx::sandbox {

// All absolute and without symbolic links.
struct CloneSource {
  std::filesystem::path root;    // of the working tree
  std::filesystem::path git;     // its own git folder: HEAD, index, modules
  std::filesystem::path common;  // objects, refs and configuration; not `git` in a linked worktree (git-worktree(1))

  bool common_is_inside() const { return common == root / ".git"; }
};

// Of the working tree that `path` is in. kInvalid says what is in the way and what to do.
Result<CloneSource> find_clone_source(const std::filesystem::path& path);

}  // namespace sbx::sandbox
