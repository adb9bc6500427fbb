#include "api/views.h"

#include "store/clock.h"

namespace sbx::api {

using nlohmann::json;

json sandbox_view(const store::Sandbox& s) {
  json view = {{"name", s.name},
               {"id", s.id},
               {"agent", s.agent},
               {"status", store::to_string(s.state)},
               {"cpus", s.cpus},
               {"memory_mib", s.memory_mib},
               {"auto_stop_s", s.auto_stop_s},
               {"created_at", store::rfc3339(s.created_at)},
               {"last_used_at", store::rfc3339(s.last_used_at)}};
  json workspaces = json::array();
  json readonly = json::array();
  json mounts = json::array();
  for (const auto& workspace : s.workspaces) {
    workspaces.push_back(workspace.on_host());
    if (workspace.readonly) readonly.push_back(workspace.on_host());
    mounts.push_back({{"source", workspace.on_host()},
                      {"target", workspace.path},
                      {"readonly", workspace.readonly},
                      {"late", workspace.late}});
  }
  view["workspaces"] = workspaces;
  if (!s.clone.empty()) view["clone"] = {{"path", s.clone}, {"source", s.workspaces.front().on_host()}};
  if (!mounts.empty()) view["mounts"] = mounts;
  if (!readonly.empty()) view["readonly_workspaces"] = readonly;
  if (!s.labels.empty()) view["labels"] = s.labels;
  if (s.stopped_at != 0) view["stopped_at"] = store::rfc3339(s.stopped_at);
  if (s.state == store::State::kRunning) view["started_at"] = store::rfc3339(s.started_at);
  if (!s.reason.empty()) view["reason"] = s.reason;
  if (!s.accelerator.empty()) view["accelerator"] = s.accelerator;
  if (!s.image_id.empty()) view["image"] = s.image_id;
  if (!s.template_id.empty()) view["template"] = s.template_id;
  return view;
}

bool has_label(const store::Sandbox& sandbox, const std::string& filter) {
  const auto equals = filter.find('=');
  const auto found = sandbox.labels.find(filter.substr(0, equals));
  if (found == sandbox.labels.end()) return false;
  return equals == std::string::npos || found->second == filter.substr(equals + 1);
}

}  // namespace sbx::api
