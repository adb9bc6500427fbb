// Mounts into, and out of, a jail that runs already: what bubblewrap does with --bind when it makes one.
//
// The jail's mounts belong to a user namespace of ours, so this needs no right on the host: a child process joins that
// namespace, takes a copy of the host's mounts, clones the folder's tree there as a mount of its own (nosuid, nodev,
// read-only where asked for), and only then enters the jail's mount namespace to put it into its place.
// For a process with one thread, blocking.
#pragma once

#include <sys/types.h>

#include "base/result.h"
#include "keeper/launch_spec.h"

namespace sbx::keeper {

// At its place (place_in_jail), where sbx-files looks for it when the guest asks. `bubblewrap` is the jail's outermost
// process.
Result<void> mount_into_jail(pid_t bubblewrap, const Workspace& workspace);
// What is open there already is a part of no place any more (Workspace::holds of sbx-files).
Result<void> unmount_from_jail(pid_t bubblewrap, const Workspace& workspace);

}  // namespace sbx::keeper
