// WatchWaker: programs in the guest that watch files (inotify, fanotify) wake up when the host changes them. The kernel
// makes events only for what is done in the guest, so a process of its own does something there that changes nothing:
// it sets the time of modification, a request which the files relay turns into a question for the attributes.
//
// What a watcher gets is IN_MODIFY: for the file and, with its name, for the folder it is in, also for a new file; for
// the folder itself where a name is gone. Nothing is done for files that nobody watches.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string_view>
#include <unordered_set>

#include "base/result.h"
#include "base/unique_fd.h"

namespace sbx::guest {

class WatchWaker {
 public:
  // Forks; before any thread is started, and before anything is open that must be closed for the process to end. It
  // ends with this object. `mount_point`: where the workspaces are, by index; may be mounted later.
  static Result<WatchWaker> start(const char* mount_point);

  // Says that the host has changed "INDEX/PATH". Never blocks: what does not fit is not told. Any thread.
  void changed(std::string_view path) const;
  // Whose requests change nothing.
  pid_t pid() const { return pid_; }

 private:
  WatchWaker(UniqueFd pipe, pid_t pid) : pipe_(std::move(pipe)), pid_(pid) {}
  UniqueFd pipe_;
  pid_t pid_;
};

// The inodes on the device `device` (st_dev) that are watched, from the text of a /proc/PID/fdinfo/FD (proc(5)).
void add_watched(std::string_view fdinfo, dev_t device, std::unordered_set<std::uint64_t>& inodes);

}  // namespace sbx::guest
