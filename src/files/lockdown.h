// Gives up, for good, what serving files does not need: new privileges, all capabilities, every path outside the
// workspaces (Landlock, where the host has it) and every system call that is not on a list (seccomp; others fail with
// EPERM). Call once the stream is connected and before the first byte of the guest is read.
#pragma once

#include <vector>

#include "base/result.h"
#include "files/workspace.h"

namespace sbx::files {

Result<void> lock_down(const std::vector<Workspace>& workspaces);

}  // namespace sbx::files
