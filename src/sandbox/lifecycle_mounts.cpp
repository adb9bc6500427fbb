// Mounts that come and go while a sandbox is there. What its keeper is to mount stands in mounts.json of the runtime
// folder: the half of the keeper that mounts takes no word for it that could be the guest's.
#include <algorithm>

#include "base/file.h"
#include "sandbox/launch_spec.h"
#include "sandbox/lifecycle.h"
#include "sandbox/workspaces.h"

namespace sbx::sandbox {
namespace {

using nlohmann::json;

constexpr std::chrono::seconds kMountDeadline{90};

json mounts_of(const std::vector<store::Workspace>& workspaces) {
  json list = json::array();
  for (const auto& workspace : workspaces) list.push_back(mount_of(workspace));
  return {{"workspaces", list}};
}

// For the worker and the guest, who need not know where it is on the host.
json request_for(const store::Workspace& workspace, bool force) {
  json entry = mount_of(workspace);
  entry.erase("source");
  return {{"workspaces", json::array({entry})}, {"force", force}};
}

}  // namespace

Result<void> Lifecycle::write_mounts(const store::Sandbox& row) const {
  return write_file_atomically(paths_.runtime(row.id) / "mounts.json", mounts_of(row.workspaces).dump());
}

Awaitable<Result<void>> Lifecycle::tell_mounts(const store::Sandbox& row, std::string path, store::Workspace changed,
                                               bool force) {
  if (row.state != store::State::kRunning) co_return Result<void>{};
  SBX_CO_CHECK(write_mounts(row), "writing what is to be mounted");
  SBX_CO_TRY(auto client, client_of(row.id), "reaching the sandbox");
  json request = request_for(changed, force);
  SBX_CO_CHECK(co_await client->call("POST", std::move(path), std::move(request), kMountDeadline),
               "changing the mounts");
  co_return Result<void>{};
}

Awaitable<Result<store::Sandbox>> Lifecycle::mount(std::string name, store::Workspace workspace) {
  SBX_CO_TRY(auto row, require(name), "mounting");
  SBX_CO_TRY(auto guard, co_await lock(row.id), "waiting for the sandbox");
  SBX_CO_TRY(row, require(row.id), "mounting");
  SBX_CO_CHECK(check_hides_none(workspace.path, row.workspaces), "mounting");
  workspace.late = true;
  workspace.index = row.next_workspace++;
  const store::Sandbox before = row;
  row.workspaces.push_back(workspace);
  SBX_CO_CHECK(store_.update(row), "storing the mount");
  auto told = co_await tell_mounts(row, "/mount", workspace, false);
  if (!told) {
    (void)store_.update(before);  // its number stays used
    (void)co_await tell_mounts(before, "/unmount", workspace, true);
    co_return std::unexpected(std::move(told.error()));
  }
  co_return row;
}

Awaitable<Result<store::Sandbox>> Lifecycle::unmount(std::string name, std::string target, UnmountOptions options) {
  SBX_CO_TRY(auto row, require(name), "unmounting");
  SBX_CO_TRY(auto guard, co_await lock(row.id), "waiting for the sandbox");
  SBX_CO_TRY(row, require(row.id), "unmounting");
  const auto found = std::ranges::find(row.workspaces, target, &store::Workspace::path);
  if (found == row.workspaces.end())
    co_return fail(ErrorCode::kNotFound, "nothing is mounted at " + target + " of sandbox '" + row.name + "'");
  if (found->index == 0) {
    co_return fail(ErrorCode::kInvalid, target + " is the primary workspace of sandbox '" + row.name +
                                            "', which it cannot be without; 'sbx rm " + row.name +
                                            "' removes the sandbox and leaves the folder as it is");
  }
  const store::Sandbox before = row;
  const store::Workspace gone = *found;
  row.workspaces.erase(found);
  SBX_CO_CHECK(store_.update(row), "storing the unmount");
  auto told = co_await tell_mounts(row, "/unmount", gone, options.force);
  if (!told && told.error().code == ErrorCode::kConflict) {
    SBX_CO_CHECK(store_.update(before), "storing that it is still mounted");
    SBX_CO_CHECK(write_mounts(before), "storing that it is still mounted");
  }
  if (!told) co_return std::unexpected(std::move(told.error()));
  co_return row;
}

}  // namespace sbx::sandbox
