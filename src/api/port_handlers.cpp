// Published ports.
#include "api/handlers.h"
#include "sandbox/json_fields.h"
#include "sandbox/known_members.h"

namespace sbx::api {

using nlohmann::json;

namespace {

// Outside coroutines: GCC 12 cannot keep the arrays behind braced initialisers across a co_await.
Result<void> check_members(const json& body) { return sandbox::only_members(body, {"publish", "unpublish"}); }

json port_view(const store::PublishedPort& port) {
  return {{"host_ip", port.host_ip},
          {"host_port", port.host_port},
          {"sandbox_port", port.sandbox_port},
          {"protocol", port.protocol}};
}

json port_views(const std::vector<store::PublishedPort>& ports) {
  json list = json::array();
  for (const auto& port : ports) list.push_back(port_view(port));
  return list;
}

json change_view(const sandbox::Lifecycle::PortChange& change) {
  return {{"published", port_views(change.published)}, {"unpublished", port_views(change.unpublished)}};
}

}  // namespace

json ports_of(Daemon& daemon, const std::string& sandbox_id, bool only_listening) {
  json list = json::array();
  const auto ports = daemon.lifecycle.ports(sandbox_id);
  if (!ports) return list;
  for (const auto& [port, listening] : *ports) {
    if (only_listening && !listening) continue;
    list.push_back(port_view(port));
    if (!only_listening) list.back()["listening"] = listening;
  }
  return list;
}

SBX_HANDLER(list_ports) {
  (void)progress;
  SBX_CO_TRY(const auto row, daemon.lifecycle.find(request.params["name"]), "listing ports");
  json view;
  view["ports"] = ports_of(daemon, row.id, false);
  co_return view;
}

SBX_HANDLER(change_ports) {
  SBX_CO_CHECK(check_members(request.body), "reading the request");
  SBX_CO_TRY(auto publish, sandbox::text_list(request.body, "publish"), "reading publish");
  SBX_CO_TRY(auto unpublish, sandbox::text_list(request.body, "unpublish"), "reading unpublish");
  SBX_CO_TRY(const auto change,
             co_await daemon.lifecycle.change_ports(request.params["name"], std::move(publish), std::move(unpublish),
                                                    std::move(progress)),
             "changing ports");
  co_return change_view(change);
}

}  // namespace sbx::api
