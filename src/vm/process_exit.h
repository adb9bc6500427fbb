// Waiting for a child process in a coroutine.
#pragma once

#include <chrono>

#include "base/command.h"
#include "vm/awaitable.h"

namespace sbx::vm {

// True when the process behind `pidfd` has ended, false when the deadline passed first. Does not reap; several may
// wait for the same process.
Awaitable<bool> process_ended(int pidfd, std::chrono::steady_clock::duration deadline);

}  // namespace sbx::vm
