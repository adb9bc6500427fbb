// The files relay: a process of its own (a fork of PID 1, before any thread) that carries the messages of /dev/fuse to
// the files port and back, unchanged but for those with one answer and those of WatchWaker. Three threads: kernel to
// host, host to kernel, and notifications, since an invalidation may block in the kernel on a page whose READ reply is
// behind it in the stream. When the host side goes away the process ends, /dev/fuse closes, and open files get
// ENOTCONN.
#pragma once

#include <string_view>
#include <vector>

#include "base/unique_fd.h"
#include "guest/relay_progress.h"
#include "guest/workspaces.h"

namespace sbx::guest {

inline constexpr std::string_view kFuseSource = "sbx-workspaces";
inline constexpr std::string_view kRelayReady = "ready";
inline constexpr std::string_view kRelayBusy = "busy";

// To be called in the child. Closes every inherited descriptor but the counter's and `report`, on which it says
// kRelayReady once all workspaces are bound, or else what went wrong, and closes it. Counts the notifications that the
// kernel has taken, the refused ones included.
[[noreturn]] void run_files_relay(const std::vector<Workspace>& workspaces, UniqueFd report,
                                  const RelayCounter& counter);

// To be called in a child. Binds one workspace of the session that is mounted, or takes it away; says what
// run_files_relay() says, and ends.
[[noreturn]] void bind_in_child(const Workspace& workspace, UniqueFd report);
[[noreturn]] void unbind_in_child(const Workspace& workspace, UniqueFd report);  // kRelayBusy if it is in use
[[noreturn]] void unbind_by_force_in_child(const Workspace& workspace, UniqueFd report);

}  // namespace sbx::guest
