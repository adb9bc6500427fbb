// The end of the VM, and what comes before a template or a memory image is saved.
#pragma once

#include "base/result.h"
#include "guest/guest.h"

namespace sbx::guest {

// sync(2), then the page cache, dentries and inodes. Blocking.
Result<void> drop_caches();

// sync(2), then what was cached since the template was saved (see Cgroups::reclaim). A clone has no copy of its own of
// what the template has in its page cache, but each page of it that is given back becomes one. Blocking.
Result<void> drop_new_caches(Guest& guest);

// Ends everything, unmounts, and powers off; does not come back.
Awaitable<void> shut_down(Guest& guest);

// sync, root read-only, power off.
[[noreturn]] void power_off();

}  // namespace sbx::guest
