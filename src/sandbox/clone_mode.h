// Clone mode: the sandbox works on a clone of its own, on its own disk, at the path that the repository has on the
// host. The host's repository is mounted read-only beside it, and what the sandbox commits is fetched from there by the
// user's git (src/cli/clone_remote.h).
//
// The clone has objects of its own. Borrowing the host's (git clone --shared) would be quicker to set up, but a `git
// gc` on the host deletes what no branch of the host has any more, whether a sandbox still needs it or not.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "sandbox/clone_source.h"
#include "store/sandbox_store.h"

namespace sbx::sandbox {

// Where the host's repository is in the sandbox.
inline constexpr const char* kCloneSource = "/run/sandbox/source";
inline constexpr const char* kCloneCommon = "/run/sandbox/git";  // if it is outside of the working tree

// Who commits in the clone, unless the repository says so itself.
struct CloneIdentity {
  std::string name, email;
};

struct ClonePlan {
  std::string target;  // of the clone
  // Folders of the host's repository as the sandbox sees them; see CloneSource.
  std::string git, common;
  CloneIdentity identity;
};

// Turns the first workspace into the read-only source of a clone, and adds what else the source needs. kInvalid if it
// is no repository that can be cloned.
Result<ClonePlan> plan_clone(std::vector<store::Workspace>& workspaces, const std::filesystem::path& home);

// Commands that make the clone: as root a place for it, as the agent what is in it.
std::vector<std::string> clone_place_command(const ClonePlan& plan);
std::vector<std::string> clone_command(const ClonePlan& plan);
// As root after every start, if the place would not outlive a boot.
std::optional<std::vector<std::string>> clone_place_again_command(const std::string& target);
// What an exit status of theirs means.
Result<void> clone_outcome(int exit_status, const ClonePlan& plan);

}  // namespace sbx::sandbox
