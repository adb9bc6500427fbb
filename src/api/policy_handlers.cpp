// The routes below /v1/policy.
#include <algorithm>

#include "api/handlers.h"
#include "api/policy_views.h"
#include "policy/rule_set.h"
#include "sandbox/json_fields.h"
#include "sandbox/known_members.h"

namespace sbx::api {

using nlohmann::json;
using sandbox::text_field;

namespace {

Result<SandboxNames> sandbox_names(Daemon& daemon) {
  SandboxNames names;
  for (const auto& row : SBX_TRY(daemon.lifecycle.list(), "listing the sandboxes")) names[row.id] = row.name;
  return names;
}

// From {"sandbox":NAME} or {"profile":NAME}; neither: every sandbox.
Result<policy::Scope> scope_of(Daemon& daemon, const json& body) {
  policy::Scope scope;
  scope.profile = text_field(body, "profile");
  if (const std::string name = text_field(body, "sandbox"); !name.empty())
    scope.sandbox_id = SBX_TRY(daemon.lifecycle.find(name), "looking for the sandbox").id;
  return scope;
}

// Outside coroutines: GCC 12 cannot keep the arrays behind braced initialisers across a co_await.
template <typename... Names>
Result<void> only(const json& body, Names... names) {
  return sandbox::only_members(body, {names...});
}

json views_of(const std::vector<policy::StoredRule>& rules, const SandboxNames& names) {
  json list = json::array();
  for (const auto& rule : rules) list.push_back(rule_view(rule, names));
  return list;
}

}  // namespace

SBX_HANDLER(get_policy) {
  (void)request, (void)progress;
  SBX_CO_TRY(const auto preset, daemon.lifecycle.policy().preset(), "reading the policy");
  json view;
  view["initialized"] = preset.has_value();
  view["preset"] = preset ? json(*preset) : json();
  co_return view;
}

Result<json> network_policy_of(Daemon& daemon, const std::string& sandbox_id) {
  auto& policy = daemon.lifecycle.policy();
  const auto rules = SBX_TRY(policy.rules_for(sandbox_id), "reading its policy");
  const bool own = std::ranges::any_of(rules, [](const auto& rule) { return rule.scope != policy::Scope(); });
  json profiles = json::array();
  for (const auto& profile : SBX_TRY(policy.profiles(), "reading its policy")) {
    if (std::ranges::find(profile.sandbox_ids, sandbox_id) != profile.sandbox_ids.end()) {
      profiles.push_back(profile.name);
    }
  }
  json view = {{"scope", own || !profiles.empty() ? "sandbox" : "global"}};
  if (const auto preset = SBX_TRY(policy.preset(), "reading its policy")) view["preset"] = *preset;
  if (!profiles.empty()) view["profiles"] = profiles;
  return view;
}

SBX_HANDLER(init_policy) {
  SBX_CO_CHECK(only(request.body, "preset"), "reading the request");
  (void)progress;
  const std::string preset = text_field(request.body, "preset");
  SBX_CO_CHECK(daemon.lifecycle.policy().initialise(preset), "initialising the policy");
  co_return json{{"preset", preset}};
}

SBX_HANDLER(reset_policy) {
  (void)request, (void)progress;
  SBX_CO_CHECK(daemon.lifecycle.policy().reset(), "resetting the policy");
  co_return json::object();
}

SBX_HANDLER(list_rules) {
  (void)progress;
  SBX_CO_TRY(const auto names, sandbox_names(daemon), "listing the rules");
  Result<std::vector<policy::StoredRule>> rules = daemon.lifecycle.policy().rules();
  if (const auto wanted = request.query.find("sandbox"); wanted != request.query.end()) {
    SBX_CO_TRY(const auto row, daemon.lifecycle.find(wanted->second), "listing the rules");
    rules = daemon.lifecycle.policy().rules_for(row.id);
  }
  if (!rules) co_return std::unexpected(rules.error());
  co_return json{{"rules", views_of(*rules, names)}};
}

SBX_HANDLER(add_rule) {
  SBX_CO_CHECK(
      only(request.body, "decision", "name", "resources", "protocols", "methods", "paths", "sandbox", "profile"),
      "reading the request");
  (void)progress;
  SBX_CO_TRY(auto rule, parse_rule(request.body), "reading the rule");
  SBX_CO_TRY(rule.scope, scope_of(daemon, request.body), "reading the rule");
  SBX_CO_TRY(const auto added, daemon.lifecycle.policy().add(std::move(rule)), "adding the rule");
  SBX_CO_TRY(const auto names, sandbox_names(daemon), "adding the rule");
  co_return rule_view(added, names);
}

SBX_HANDLER(remove_rules) {
  SBX_CO_CHECK(only(request.body, "id", "resource", "methods", "paths", "sandbox", "profile"), "reading the request");
  (void)progress;
  policy::Selector selector;
  selector.id = text_field(request.body, "id");
  selector.resource = text_field(request.body, "resource");
  SBX_CO_TRY(selector.scope, scope_of(daemon, request.body), "reading the request");
  SBX_CO_TRY(selector.methods, sandbox::text_list(request.body, "methods"), "reading the request");
  SBX_CO_TRY(selector.paths, sandbox::text_list(request.body, "paths"), "reading the request");
  SBX_CO_TRY(const auto removed, daemon.lifecycle.policy().remove(selector), "removing the rule");
  SBX_CO_TRY(const auto names, sandbox_names(daemon), "removing the rule");
  co_return json{{"removed_from", views_of(removed, names)}};
}

SBX_HANDLER(check_policy) {
  SBX_CO_CHECK(only(request.body, "target", "protocol", "method", "path", "sandbox", "profile"), "reading the request");
  (void)progress;
  SBX_CO_TRY(const auto target, parse_check(request.body), "reading the request");
  SBX_CO_TRY(const auto scope, scope_of(daemon, request.body), "reading the request");
  SBX_CO_TRY(const auto document, daemon.lifecycle.policy().document(scope.sandbox_id), "reading the policy");
  SBX_CO_TRY(const auto rules, policy::RuleSet::from_json(document), "reading the policy");
  const auto decision = rules.decide(target);
  const bool udp = target.protocol == policy::Protocol::kUdp;
  json view = {{"allowed", decision.allowed},
               {"action", udp ? "net:connect:udp" : "net:connect:tcp"},
               {"context", scope.sandbox_id.empty() ? "global" : "sandbox:" + text_field(request.body, "sandbox")},
               {"host", target.host},
               {"port", target.port},
               {"rule", decision.rule},
               {"origin", decision.origin},
               {"reason", decision.reason}};
  // Rules about methods and paths have a say, request by request.
  if (!target.method && !udp && rules.needs_http(target.host, target.port)) view["depends_on_request"] = true;
  co_return view;
}

SBX_HANDLER(list_profiles) {
  (void)request, (void)progress;
  SBX_CO_TRY(const auto profiles, daemon.lifecycle.policy().profiles(), "listing the profiles");
  SBX_CO_TRY(const auto names, sandbox_names(daemon), "listing the profiles");
  json list = json::array();
  for (const auto& profile : profiles) {
    json sandboxes = json::array();
    for (const auto& id : profile.sandbox_ids) {
      if (const auto name = names.find(id); name != names.end()) sandboxes.push_back(name->second);
    }
    list.push_back({{"name", profile.name}, {"rules", profile.rules}, {"sandboxes", sandboxes}});
  }
  co_return json{{"profiles", list}};
}

SBX_HANDLER(create_profile) {
  (void)progress;
  SBX_CO_CHECK(daemon.lifecycle.policy().add_profile(request.params["profile"]), "making a profile");
  co_return json::object();
}

SBX_HANDLER(remove_profile) {
  (void)progress;
  SBX_CO_CHECK(daemon.lifecycle.policy().remove_profile(request.params["profile"]), "removing a profile");
  co_return json::object();
}

SBX_HANDLER(attach_profile) {
  (void)progress;
  SBX_CO_TRY(const auto row, daemon.lifecycle.find(request.params["name"]), "attaching a profile");
  SBX_CO_CHECK(daemon.lifecycle.policy().attach_profile(request.params["profile"], row.id), "attaching a profile");
  co_return json::object();
}

SBX_HANDLER(detach_profile) {
  (void)progress;
  SBX_CO_TRY(const auto row, daemon.lifecycle.find(request.params["name"]), "detaching a profile");
  SBX_CO_CHECK(daemon.lifecycle.policy().detach_profile(request.params["profile"], row.id), "detaching a profile");
  co_return json::object();
}

SBX_HANDLER(get_policy_log) {
  (void)progress;
  SBX_CO_TRY(const auto filter, log_filter(daemon, request), "reading the policy log");
  co_return daemon.lifecycle.policy_log().summary(filter);
}

Result<policy::LogFilter> log_filter(Daemon& daemon, Request& request) {
  policy::LogFilter filter;
  filter.type = request.query["type"];
  if (const std::string limit = request.query["limit"]; !limit.empty()) {
    if (limit.size() > 6 || limit.find_first_not_of("0123456789") != std::string::npos)
      return fail(ErrorCode::kInvalid, "the limit must be a number");
    filter.limit = std::stoul(limit);
  }
  if (const std::string name = request.query["sandbox"]; !name.empty()) {
    auto row = daemon.lifecycle.find(name);
    if (row) {
      filter.sandbox_id = row->id;
    } else {  // its entries outlive it
      const auto id = SBX_TRY(daemon.lifecycle.policy_log().id_of_removed(name), "looking for the sandbox");
      if (!id) return std::unexpected(row.error());
      filter.sandbox_id = *id;
    }
  }
  return filter;
}

}  // namespace sbx::api
