// Workspaces: the host folders in this VM. Each POST /mount starts a relay process for the files port, mounts its FUSE
// session at /run/sbx/workspaces and binds every entry at its path (docs/development/protocols.md, Files port).
//
// Everything that may block on the file server happens in child processes with a deadline, never in the event loop.
// Thread safety: none; the event loop only.
#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "guest/async_event.h"
#include "guest/reaper.h"
#include "guest/relay_progress.h"

namespace sbx::guest {

struct Workspace {
  unsigned index = 0;
  std::string path;  // absolute, no "..", the same on the host
  bool readonly = false;
  bool file = false;
};

// The body of POST /mount.
Result<std::vector<Workspace>> parse_workspaces(std::string_view json);
// Mount points of our FUSE session in the text of /proc/self/mounts, last mounted first.
std::vector<std::string> our_mount_points(std::string_view mounts);

class Workspaces {
 public:
  Workspaces(boost::asio::any_io_executor executor, Reaper& reaper)
      : executor_(executor), reaper_(reaper), turn_(executor) {}

  // What is mounted from earlier goes first. kTimeout if the file server does not answer.
  Awaitable<Result<void>> mount(std::vector<Workspace> workspaces);
  Awaitable<Result<void>> unmount();
  // To and from what is mounted already. kUnavailable if nothing is.
  Awaitable<Result<void>> add(std::vector<Workspace> workspaces);
  // kConflict if something uses one of them and `force` is not set; with it they go, and what is open finds nothing.
  struct RemoveOptions {
    bool force = false;
  };
  Awaitable<Result<void>> remove(std::vector<Workspace> workspaces, RemoveOptions options);
  // Until the kernel has had this many of the file server's notifications: what they are about is seen by every command
  // that starts then. Returns at once if nothing is mounted.
  Awaitable<void> notified(std::uint64_t count);
  // The folder of workspace 0; empty if nothing is mounted.
  std::string primary_folder() const;

 private:
  Awaitable<Result<void>> unmount_now();
  // Runs `step` in a child, which reports as the relay does.
  using ChildStep = void (*)(const Workspace&, UniqueFd);
  Awaitable<Result<void>> in_child(ChildStep step, const Workspace& workspace);
  void kill_relay();

  boost::asio::any_io_executor executor_;
  Reaper& reaper_;
  AsyncMutex turn_;
  std::vector<Workspace> mounted_;
  std::shared_ptr<Child> relay_;
  std::shared_ptr<RelayProgress> progress_;
};

}  // namespace sbx::guest
