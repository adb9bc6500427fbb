// What sbx-files and sbx-guest say to each other on the files port beside FUSE messages
// (docs/development/protocols.md).
#pragma once

namespace sbx::wire {

// The code of a message, as of fuse_notify_code, that names what the host has changed: the workspace's index and the
// path in it, "0/src/main.c", and NUL. It is for sbx-guest, not for the guest's kernel, and not counted as a
// notification.
inline constexpr int kHostChanged = 0x7362;

}  // namespace sbx::wire
