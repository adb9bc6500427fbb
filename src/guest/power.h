// The end of the VM, and what comes before a template or a memory image is saved.
#pragma once

#include "base/result.h"
#include "guest/guest.h"

namespace sbx::guest {

// sync(2), then the page cache, dentries and inodes. Blocking.
Result<void> drop_caches();

// Ends everything, unmounts, and powers off; does not come back.
Awaitable<void> shut_down(Guest& guest);

// sync, root read-only, power off.
[[noreturn]] void power_off();

}  // namespace sbx::guest
