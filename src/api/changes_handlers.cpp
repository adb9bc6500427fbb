#include "api/changes_handlers.h"

#include "sandbox/async.h"
#include "sandbox/changes.h"
#include "store/clock.h"

namespace sbx::api {

using nlohmann::json;

namespace {

// Where it is on the host; "" if it has been unmounted.
std::string workspace_at(const store::Sandbox& row, unsigned index) {
  for (const auto& workspace : row.workspaces) {
    if (workspace.index == static_cast<int>(index)) return workspace.on_host();
  }
  return "";
}

json report_view(const sandbox::ProtectedChange& report, const store::Sandbox& row) {
  return {{"workspace", workspace_at(row, report.workspace)},
          {"path", report.path},
          {"kind", report.kind},
          {"denied", report.denied},
          {"count", report.count},
          {"last_at", store::rfc3339(report.last_ms)}};
}

json reports_view(const std::vector<sandbox::ProtectedChange>& reports, const store::Sandbox& row) {
  json list = json::array();
  for (const auto& report : reports) list.push_back(report_view(report, row));
  return list;
}

json change_view(const sandbox::Change& change, const store::Sandbox& row) {
  static constexpr const char* kKinds[] = {"added", "modified", "deleted"};
  json view = {{"workspace", workspace_at(row, change.entry.workspace)},
               {"path", change.entry.path},
               {"kind", kKinds[change.kind]},
               {"folder", change.folder},
               {"size", change.size}};
  if (const auto& before = change.entry.before) view["before"] = {{"from", before->first}, {"size", before->second}};
  return view;
}

}  // namespace

Awaitable<json> protection_of(Daemon& daemon, store::Sandbox row) {
  json view = {{"mode", row.protection.deny ? "deny" : "report"},
               {"protect", row.protection.protect},
               {"hide", row.protection.hide}};
  auto read = [folder = daemon.lifecycle.paths().sandbox(row.id)] { return sandbox::read_journal(folder); };
  const auto journal = co_await sandbox::run_blocking(daemon.lifecycle.pool(), std::move(read));
  view["reports"] = reports_view(journal.reports, row);
  view["complete"] = journal.complete;
  co_return view;
}

SBX_HANDLER(get_changes) {
  (void)progress;
  SBX_CO_TRY(const auto row, daemon.lifecycle.find(request.params["name"]), "listing changes");
  const auto folder = daemon.lifecycle.paths().sandbox(row.id);
  auto look = [folder, workspaces = row.workspaces] { return sandbox::read_changes(folder, workspaces); };
  const auto found = co_await sandbox::run_blocking(daemon.lifecycle.pool(), std::move(look));
  json changes = json::array();
  for (const auto& change : found.changes) changes.push_back(change_view(change, row));
  json view;
  view["changes"] = std::move(changes);
  view["protected"] = reports_view(found.reports, row);
  view["complete"] = found.complete;
  view["before_file"] = sandbox::before_file(folder).native();
  co_return view;
}

}  // namespace sbx::api
