// Opens what a workspace is on the host, by the path that the user named and that had no symbolic link on its way then.
// A link that is there now was put there since, perhaps by a sandbox that has a folder above as its workspace: it is
// not followed (kDenied), wherever it leads. Blocking; any thread.
#pragma once

#include "base/result.h"
#include "base/unique_fd.h"
#include "keeper/launch_spec.h"

namespace sbx::keeper {

// O_PATH, in the mount namespace of the caller.
Result<UniqueFd> open_source(const Workspace& workspace);

}  // namespace sbx::keeper
