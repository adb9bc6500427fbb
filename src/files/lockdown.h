// Gives up, for good, what serving files does not need: new privileges, all capabilities, every path outside the
// workspaces (Landlock, where the host has it) and every system call that is not on a list (seccomp; others fail with
// EPERM). Call once the stream is connected and before the first byte of the guest is read.
#pragma once

#include <vector>

#include "base/result.h"
#include "files/workspace.h"

namespace sbx::files {

// `late`, if it is not -1, is the folder in which workspaces may be mounted later: a jail's, where the mounts
// themselves say what is read-only.
Result<void> lock_down(const std::vector<Workspace>& workspaces, int late = -1);

}  // namespace sbx::files
