// How the policy looks to a client, and what a client may send. Pure.
#pragma once

#include <map>
#include <nlohmann/json.hpp>
#include <string>

#include "policy/host.h"
#include "policy/policy_store.h"

namespace sbx::api {

// Names of sandboxes by id.
using SandboxNames = std::map<std::string, std::string>;

// One entry of GET /v1/policy/rules.
nlohmann::json rule_view(const policy::StoredRule& rule, const SandboxNames& names);

// "all", "sandbox:NAME" or "profile:NAME".
std::string applies_to(const policy::Scope& scope, const SandboxNames& names);

// The rule of a POST /v1/policy/rules; its scope is the caller's affair.
Result<policy::StoredRule> parse_rule(const nlohmann::json& body);

// The target of a POST /v1/policy/check.
Result<policy::Target> parse_check(const nlohmann::json& body);

}  // namespace sbx::api
