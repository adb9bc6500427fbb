// The guest's cgroup2 tree:
//   /init       sbx-guest and the files relay; never frozen, never killed
//   /services   dockerd and containerd
//   /user/N     one per exec
//   anything else at the top (Docker makes /docker) belongs to the user.
// Thread safety: none; the event loop only.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"
#include "guest/async_event.h"

namespace sbx::guest {

class Cgroups {
 public:
  explicit Cgroups(std::filesystem::path root = "/sys/fs/cgroup") : root_(std::move(root)) {}

  // Moves this process to /init, makes the others and delegates the controllers.
  Result<void> prepare();
  struct Group {
    std::string name;  // below the root: "user/1"
    UniqueFd fd;       // for clone3's CLONE_INTO_CGROUP
  };
  // Makes a group ("services"), or finds it made; the fd is for clone3's CLONE_INTO_CGROUP.
  Result<UniqueFd> make(const std::string& name);
  // A new, empty group for one command: the spare one if there is one, since making a group is a good part of what a
  // clone's first command costs.
  Result<Group> take();
  // Sees to it that the next take() finds a group. What a template has is in each of its clones.
  void keep_spare();
  // Whether the kernel has killed a process in it because memory ran out.
  bool out_of_memory(const std::string& name) const;
  // SIGKILL to every process in it (cgroup.kill).
  void kill(const std::string& name);
  void signal(const std::string& name, int signal_number);
  // Removes the group now, or at a later collect() once its last process has gone.
  void remove_when_empty(const std::string& name);
  void collect();

  // Gives back the page cache that the user's processes and, unless they are frozen, the services have filled; what
  // sbx-guest's own group has read stays. Blocking.
  void reclaim();

  // Whether the user's part is frozen; the services may still be when it is not (see thaw).
  bool frozen() const { return frozen_; }
  // Freezes every top-level group but /init, and waits until the kernel says so.
  Awaitable<Result<void>> freeze(std::chrono::milliseconds deadline);
  // Thaws them again; with `services` false all but /services.
  struct ThawOptions {
    bool services = true;
  };
  Awaitable<Result<void>> thaw(std::chrono::milliseconds deadline, ThawOptions options);
  Awaitable<Result<void>> thaw(std::chrono::milliseconds deadline);
  // At once, without waiting for the kernel to say so.
  void thaw_services();
  // Freezes /services only: dockerd must not see its containers end, or it would start those with a restart policy
  // again at once. After the thaw it does. Counts as frozen().
  Awaitable<Result<void>> freeze_services(std::chrono::milliseconds deadline);
  // Ends every process of the user and of containers: SIGTERM, SIGKILL after `grace`. Services go on.
  Awaitable<Result<void>> end_user_processes(std::chrono::milliseconds grace);

 private:
  std::vector<std::filesystem::path> top_level() const;
  Result<Group> make_numbered();

  std::filesystem::path root_;
  std::vector<std::string> leaving_;
  std::optional<std::string> spare_;
  unsigned made_ = 0;
  bool frozen_ = false;
};

}  // namespace sbx::guest
