#include <nlohmann/json.hpp>

#include "api/handlers.h"
#include "api/views.h"
#include "sandbox/json_fields.h"
#include "sandbox/known_members.h"
#include "sandbox/workspaces.h"

namespace sbx::api {

using nlohmann::json;

SBX_HANDLER(add_mount) {
  (void)progress;
  const auto& paths = daemon.lifecycle.paths();
  SBX_CO_TRY(auto workspace, sandbox::check_workspace(request.body, paths.home), "checking the mount");
  SBX_CO_TRY(const auto row, co_await daemon.lifecycle.mount(request.params["name"], std::move(workspace)), "mounting");
  co_return sandbox_view(row);
}

SBX_HANDLER(remove_mount) {
  (void)progress;
  SBX_CO_CHECK(sandbox::only_members(request.body, {"target", "force"}), "reading the request");
  const json target = request.body.is_object() ? request.body.value("target", json()) : json();
  if (!target.is_string()) co_return fail(ErrorCode::kInvalid, "target must be a path in the sandbox");
  SBX_CO_TRY(const auto path, sandbox::normal_path(target.get<std::string>()), "checking the mount");
  sandbox::Lifecycle::UnmountOptions options;
  options.force = sandbox::bool_field(request.body, "force");
  SBX_CO_TRY(const auto row, co_await daemon.lifecycle.unmount(request.params["name"], path, options), "unmounting");
  co_return sandbox_view(row);
}

}  // namespace sbx::api
