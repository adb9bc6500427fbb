#include "api/policy_views.h"

#include "sandbox/json_fields.h"
#include "store/clock.h"

namespace sbx::api {

using nlohmann::json;
using sandbox::text_field;

std::string applies_to(const policy::Scope& scope, const SandboxNames& names) {
  if (!scope.profile.empty()) return "profile:" + scope.profile;
  if (scope.sandbox_id.empty()) return "all";
  const auto name = names.find(scope.sandbox_id);
  return "sandbox:" + (name == names.end() ? scope.sandbox_id : name->second);
}

json rule_view(const policy::StoredRule& rule, const SandboxNames& names) {
  const std::string scope = !rule.scope.profile.empty()     ? "profile"
                            : rule.scope.sandbox_id.empty() ? "global"
                                                            : "sandbox";
  json view = {{"id", rule.id},
               {"name", rule.name},
               {"policy_id", rule.policy},
               {"scope", scope},
               {"applies_to", applies_to(rule.scope, names)},
               {"resource_type", "network"},
               {"decision", rule.decision},
               {"resources", rule.resources},
               {"protocols", rule.protocols},
               {"origin", rule.origin},
               {"layer", scope},
               {"status", "active"},
               {"editable", rule.origin == "local"},
               {"created_via", rule.created_via},
               {"created_at", store::rfc3339(rule.created_at)}};
  if (!rule.methods.empty()) view["methods"] = rule.methods;
  if (!rule.paths.empty()) view["paths"] = rule.paths;
  if (!rule.scope.sandbox_id.empty()) view["sandbox_id"] = rule.scope.sandbox_id;
  if (!rule.scope.profile.empty()) view["profile"] = rule.scope.profile;
  return view;
}

Result<policy::StoredRule> parse_rule(const json& body) {
  if (!body.is_object()) return fail(ErrorCode::kInvalid, "a rule is a JSON object");
  policy::StoredRule rule;
  rule.decision = text_field(body, "decision");
  rule.name = text_field(body, "name");
  rule.resources = SBX_TRY(sandbox::text_list(body, "resources"), "reading the rule");
  rule.protocols = SBX_TRY(sandbox::text_list(body, "protocols"), "reading the rule");
  rule.methods = SBX_TRY(sandbox::text_list(body, "methods"), "reading the rule");
  rule.paths = SBX_TRY(sandbox::text_list(body, "paths"), "reading the rule");
  return rule;
}

Result<policy::Target> parse_check(const json& body) {
  auto target = SBX_TRY(policy::parse_target(text_field(body, "target")), "reading the target");
  const std::string protocol = text_field(body, "protocol", "tcp");
  if (protocol == "udp")
    target.protocol = policy::Protocol::kUdp;
  else if (protocol != "tcp")
    return fail(ErrorCode::kInvalid, "protocol \"" + protocol + "\" is not known; use tcp or udp");
  if (std::string method = text_field(body, "method"); !method.empty()) target.method = std::move(method);
  if (std::string path = text_field(body, "path"); !path.empty()) target.path = std::move(path);
  if (target.path && !target.method)
    return fail(ErrorCode::kInvalid, "a path is judged with its method; pass --method");
  return target;
}

}  // namespace sbx::api
