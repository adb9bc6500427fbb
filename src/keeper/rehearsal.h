// What every start of a clone goes through, gone through once before it counts: the files that it writes then exist and
// have their blocks, what it reads is in the page cache, what it allocates comes from slabs that are there, and under
// emulation its code is translated. With an identity that is nobody's. Changes what a template is (CMakeLists.txt).
#pragma once

#include <string>

#include "keeper/guest_link.h"

namespace sbx::keeper {

// POST /identity: of the same shape as those that clones get, and shorter in every part. `authority` stands for those
// that the guest is to trust, and holds none; it is written only where it is not the one of the last time.
wire::Awaitable<Result<void>> rehearse_identity(GuestLink& guest, std::string authority);
// POST /thaw and a command, to its end. `folder`: where that starts; "": in the primary workspace.
wire::Awaitable<Result<void>> rehearse_command(GuestLink& guest, std::string folder);

}  // namespace sbx::keeper
