// Gives up, for good, every system call that unpacking does not need (seccomp; others fail with EPERM): no process, no
// socket, no device node, no set-id bit, no mount. Call before the first byte of the guest is read.
#pragma once

#include "base/result.h"

namespace sbx::archive {

Result<void> lock_down();

}  // namespace sbx::archive
