// Gives up, for good, what a gateway does not need: new privileges, capabilities, being looked into (ptrace, core
// dumps, /proc), and every system call that is not on a list (seccomp; others fail with EPERM). Sockets are of IPv4 and
// IPv6 only; nothing is executed; no file is written. Call when all threads and the listening socket exist.
#pragma once

#include "base/result.h"

namespace sbx::gateway {

Result<void> lock_down();

}  // namespace sbx::gateway
