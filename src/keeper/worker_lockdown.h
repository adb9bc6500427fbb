// Gives up, for good, what a worker does not need once it has its descriptors: new privileges, every capability, every
// path (Landlock, where the host has it), the growth of its log, and every system call but those that move bytes
// between open descriptors and run an event loop (seccomp; others fail with EPERM). No open, no socket, no connect, no
// exec, no fork, no signal to anybody else, no memory that can be executed.
// Call it once, before the first byte of a guest or of QEMU is read.
#pragma once

#include "base/result.h"

namespace sbx::keeper {

Result<void> lock_worker_down();

}  // namespace sbx::keeper
