#include "policy/policy_store.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/random.h"
#include "policy/http_rule.h"
#include "policy/presets.h"
#include "policy/rule_set.h"
#include "store/clock.h"

namespace sbx::policy {

using nlohmann::json;
using store::Row;
using store::Value;

namespace {

constexpr const char* kPresetKey = "policy_preset";
constexpr const char* kColumns =
    "id, name, policy, sandbox_id, profile, decision, resources, protocols, methods, paths, origin, created_via, "
    "created_at";

Value nullable(const std::string& text) { return text.empty() ? Value(nullptr) : Value(text); }

std::vector<std::string> list_from(const std::string& text) {
  const json list = json::parse(text, nullptr, false);
  return list.is_array() ? list.get<std::vector<std::string>>() : std::vector<std::string>();
}

StoredRule rule_from(const Row& row) {
  StoredRule rule;
  rule.id = row.text(0);
  rule.name = row.text(1);
  rule.policy = row.text(2);
  rule.scope.sandbox_id = row.text(3);
  rule.scope.profile = row.text(4);
  rule.decision = row.text(5);
  rule.resources = list_from(row.text(6));
  rule.protocols = list_from(row.text(7));
  rule.methods = list_from(row.text(8));
  rule.paths = list_from(row.text(9));
  rule.origin = row.text(10);
  rule.created_via = row.text(11);
  rule.created_at = row.integer(12);
  return rule;
}

json document_rule(const StoredRule& rule) {
  return {{"id", rule.id},
          {"name", rule.name},
          {"policy", rule.policy},
          {"origin", rule.created_via == "default" ? "default" : rule.origin},
          {"decision", rule.decision},
          {"resources", rule.resources},
          {"protocols", rule.protocols},
          {"methods", rule.methods},
          {"paths", rule.paths}};
}

std::string derived_name(const StoredRule& rule) {
  const std::size_t others = rule.resources.size() - 1;
  std::string name = rule.decision + " " + rule.resources.front().substr(0, 200);
  if (others != 0) name += " (+" + std::to_string(others) + ")";
  return name;
}

void keep_each_once(std::vector<std::string>& list) {
  std::vector<std::string> kept;
  for (auto& entry : list) {
    if (std::ranges::find(kept, entry) == kept.end()) kept.push_back(std::move(entry));
  }
  list = std::move(kept);
}

// What would be stored and never match: the host's services are opened by their port only.
Result<void> refuse_portless_host(const Pattern& pattern) {
  bool host = pattern.kind() == Pattern::Kind::kHost;
  if (pattern.kind() == Pattern::Kind::kNetwork) {
    for (const char* loopback : {"127.0.0.0/8", "::1"})
      host = host || Network::parse(loopback)->contains(pattern.network());
  }
  if (!host || pattern.port()) return {};
  return fail(ErrorCode::kInvalid,
              "resource \"" + pattern.text() + "\": services of the host are allowed one by one; write localhost:PORT");
}

Result<void> check_profile_name(const std::string& name) {
  const bool fine = !name.empty() && name.size() <= 63 && std::ranges::all_of(name, [](char c) {
    return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '-' || c == '_' || c == '.';
  });
  if (fine) return {};
  return fail(ErrorCode::kInvalid, "a profile's name has 1 to 63 letters, digits, -, _ or .");
}

}  // namespace

Result<StoredRule> checked(StoredRule rule) {
  if (!rule.scope.sandbox_id.empty() && !rule.scope.profile.empty())
    return fail(ErrorCode::kInvalid, "a rule is for one sandbox or of one profile, not both");
  for (auto& resource : rule.resources) {
    const auto pattern = SBX_TRY(Pattern::parse(resource), "reading a resource");
    if (rule.decision == "allow") SBX_CHECK(refuse_portless_host(pattern), "reading a resource");
    resource = pattern.text();
  }
  if (rule.resources.empty()) return fail(ErrorCode::kInvalid, "name at least one resource, such as example.com");
  bool any_method = false;
  for (auto& method : rule.methods) {
    method = SBX_TRY(parse_method(method), "reading a method");
    any_method = any_method || method.empty();
  }
  if (!rule.paths.empty() && rule.methods.empty())
    return fail(ErrorCode::kInvalid, "a path goes with methods; pass --method, or --method ANY for all");
  if (any_method) rule.methods.clear();
  if (rule.protocols.empty()) {
    rule.protocols = {"tcp"};
    if (rule.decision == "deny") rule.protocols.emplace_back("udp");
  }
  for (auto* list : {&rule.resources, &rule.methods, &rule.paths, &rule.protocols}) keep_each_once(*list);
  if (rule.name.empty()) rule.name = derived_name(rule);
  // The engine has the last word, so that nothing is stored that a gateway would refuse.
  json document;
  document["rules"] = json::array({document_rule(rule)});
  SBX_TRY(RuleSet::from_json(document), "checking the rule");
  return rule;
}

Result<void> PolicyStore::transaction(const std::function<Result<void>()>& work) {
  SBX_CHECK(database_.run("BEGIN IMMEDIATE"), "changing the policy");
  auto done = work();
  if (done) done = database_.run("COMMIT");
  if (!done) (void)database_.run("ROLLBACK");
  return done;
}

Result<std::optional<std::string>> PolicyStore::preset() {
  std::optional<std::string> found;
  SBX_CHECK(database_.run("SELECT value FROM meta WHERE key = ?", {std::string(kPresetKey)},
                          [&](const Row& row) { found = row.text(0); }),
            "reading the policy");
  return found;
}

Result<void> PolicyStore::initialise(const std::string& preset_name) {
  const auto rules = SBX_TRY(preset_rules(preset_name), "reading the preset");
  if (const auto now = SBX_TRY(preset(), "reading the policy")) {
    return fail(ErrorCode::kConflict, "the network policy is initialised already (" + *now +
                                          "); 'sbx policy reset' removes it with all its rules");
  }
  SBX_CHECK(transaction([&]() -> Result<void> {
              for (const auto& entry : rules) {
                StoredRule rule;
                rule.name = entry.name;
                rule.decision = "allow";
                rule.resources = entry.resources;
                rule.created_via = "default";
                rule = SBX_TRY(checked(std::move(rule)), "reading the preset");
                rule.id = random_uuid();
                rule.created_at = store::now_ms();
                SBX_CHECK(insert(rule), "storing the preset");
              }
              return database_.run("INSERT INTO meta(key, value) VALUES(?, ?)", {std::string(kPresetKey), preset_name});
            }),
            "initialising the policy");
  changed_.notify("");
  return {};
}

Result<bool> PolicyStore::ensure_initialised() {
  if (SBX_TRY(preset(), "reading the policy")) return false;
  SBX_CHECK(initialise(std::string(kDefaultPreset)), "initialising the policy");
  return true;
}

Result<void> PolicyStore::reset() {
  SBX_CHECK(transaction([&]() -> Result<void> {
              for (const char* table : {"policy_rules", "policy_attachments", "policy_profiles"})
                SBX_CHECK(database_.run(std::string("DELETE FROM ") + table), "removing the rules");
              return database_.run("DELETE FROM meta WHERE key = ?", {std::string(kPresetKey)});
            }),
            "resetting the policy");
  changed_.notify("");
  return {};
}

Result<void> PolicyStore::insert(const StoredRule& rule) {
  return database_.run(
      std::string("INSERT INTO policy_rules(") + kColumns + ") VALUES(?,?,?,?,?,?,?,?,?,?,?,?,?)",
      {rule.id, rule.name, rule.policy, nullable(rule.scope.sandbox_id), nullable(rule.scope.profile), rule.decision,
       json(rule.resources).dump(), json(rule.protocols).dump(), json(rule.methods).dump(), json(rule.paths).dump(),
       rule.origin, rule.created_via, rule.created_at});
}

Result<StoredRule> PolicyStore::add(StoredRule given) {
  StoredRule rule = SBX_TRY(checked(std::move(given)), "reading the rule");
  if (!rule.scope.profile.empty()) SBX_CHECK(require_profile(rule.scope.profile), "adding a rule");
  rule.id = random_uuid();
  rule.created_at = store::now_ms();
  SBX_CHECK(insert(rule), "storing the rule");
  changed_.notify(rule.scope.sandbox_id);
  return rule;
}

Result<std::vector<StoredRule>> PolicyStore::select(const std::string& where, const std::vector<Value>& values) {
  std::vector<StoredRule> rules;
  SBX_CHECK(database_.run(std::string("SELECT ") + kColumns + " FROM policy_rules " + where + " ORDER BY rowid", values,
                          [&](const Row& row) { rules.push_back(rule_from(row)); }),
            "reading the policy");
  return rules;
}

Result<std::vector<StoredRule>> PolicyStore::rules() { return select("", {}); }

Result<std::vector<StoredRule>> PolicyStore::rules_for(const std::string& sandbox_id) {
  return select(
      "WHERE (sandbox_id IS NULL AND profile IS NULL) OR sandbox_id = ?1 "
      "OR profile IN (SELECT profile FROM policy_attachments WHERE sandbox_id = ?1)",
      {sandbox_id});
}

Result<std::vector<StoredRule>> PolicyStore::remove(const Selector& selector) {
  if (selector.id.empty() && selector.resource.empty())
    return fail(ErrorCode::kInvalid, "at least one selector is required: use --id or --resource");
  std::string resource;
  if (!selector.resource.empty()) resource = SBX_TRY(Pattern::parse(selector.resource), "reading the resource").text();
  Selector wanted = selector;
  for (auto& method : wanted.methods) method = SBX_TRY(parse_method(method), "reading a method");
  std::erase(wanted.methods, "");
  const auto matches = [&](const StoredRule& rule) {
    if (!wanted.id.empty() && rule.id != wanted.id) return false;
    if (resource.empty()) return true;
    if (wanted.id.empty() && rule.scope != wanted.scope) return false;
    if (!selector.methods.empty() && rule.methods != wanted.methods) return false;
    if (!selector.paths.empty() && rule.paths != wanted.paths) return false;
    return std::ranges::find(rule.resources, resource) != rule.resources.end();
  };
  std::vector<StoredRule> hit;
  for (auto& rule : SBX_TRY(rules(), "looking for the rule")) {
    if (matches(rule)) hit.push_back(std::move(rule));
  }
  if (hit.empty()) {
    const bool scoped = wanted.scope != Scope{};
    return fail(ErrorCode::kNotFound,
                scoped ? "no scoped policy found: no rule there has this resource; see 'sbx policy ls'"
                       : "rule not found; see 'sbx policy ls --wide'");
  }
  for (const auto& rule : hit) {
    if (rule.origin != "local")
      return fail(ErrorCode::kDenied, "rule " + rule.id + " belongs to a " + rule.origin + " and goes with it only");
  }
  SBX_CHECK(transaction([&]() -> Result<void> {
              for (auto rule : hit) {
                if (!resource.empty()) std::erase(rule.resources, resource);
                if (resource.empty() || rule.resources.empty()) {
                  SBX_CHECK(database_.run("DELETE FROM policy_rules WHERE id = ?", {rule.id}), "removing a rule");
                } else {
                  SBX_CHECK(database_.run("UPDATE policy_rules SET resources = ?2 WHERE id = ?1",
                                          {rule.id, json(rule.resources).dump()}),
                            "removing a resource");
                }
              }
              return {};
            }),
            "removing a rule");
  for (const auto& rule : hit) changed_.notify(rule.scope.sandbox_id);
  return hit;
}

Result<void> PolicyStore::require_profile(const std::string& name) {
  bool found = false;
  SBX_CHECK(database_.run("SELECT 1 FROM policy_profiles WHERE name = ?", {name}, [&](const Row&) { found = true; }),
            "looking for the profile");
  if (found) return {};
  return fail(ErrorCode::kNotFound,
              "profile '" + name + "' not found; make it with: sbx policy profile create " + name);
}

Result<void> PolicyStore::add_profile(const std::string& name) {
  SBX_CHECK(check_profile_name(name), "making a profile");
  auto done = database_.run("INSERT INTO policy_profiles(name, created_at) VALUES(?, ?)", {name, store::now_ms()});
  if (!done && done.error().code == ErrorCode::kConflict)
    return fail(ErrorCode::kConflict, "profile '" + name + "' already exists");
  return done;
}

Result<void> PolicyStore::remove_profile(const std::string& name) {
  SBX_CHECK(require_profile(name), "removing a profile");
  SBX_CHECK(database_.run("DELETE FROM policy_profiles WHERE name = ?", {name}), "removing a profile");
  changed_.notify("");
  return {};
}

Result<std::vector<Profile>> PolicyStore::profiles() {
  std::vector<Profile> profiles;
  SBX_CHECK(
      database_.run(
          "SELECT name, (SELECT count(*) FROM policy_rules WHERE profile = policy_profiles.name) FROM policy_profiles "
          "ORDER BY name",
          {},
          [&](const Row& row) {
            profiles.push_back({row.text(0), {}, static_cast<std::size_t>(row.integer(1))});
          }),
      "listing the profiles");
  for (auto& profile : profiles) {
    SBX_CHECK(database_.run("SELECT sandbox_id FROM policy_attachments WHERE profile = ? ORDER BY rowid",
                            {profile.name}, [&](const Row& row) { profile.sandbox_ids.push_back(row.text(0)); }),
              "listing the profiles");
  }
  return profiles;
}

Result<void> PolicyStore::attach_profile(const std::string& name, const std::string& sandbox_id) {
  SBX_CHECK(require_profile(name), "attaching a profile");
  SBX_CHECK(
      database_.run("INSERT OR IGNORE INTO policy_attachments(sandbox_id, profile) VALUES(?, ?)", {sandbox_id, name}),
      "attaching a profile");
  changed_.notify(sandbox_id);
  return {};
}

Result<void> PolicyStore::detach_profile(const std::string& name, const std::string& sandbox_id) {
  SBX_CHECK(database_.run("DELETE FROM policy_attachments WHERE sandbox_id = ? AND profile = ?", {sandbox_id, name}),
            "detaching a profile");
  if (database_.changes() == 0) return fail(ErrorCode::kNotFound, "profile '" + name + "' is not attached to it");
  changed_.notify(sandbox_id);
  return {};
}

Result<json> PolicyStore::document(const std::string& sandbox_id) {
  json document;
  document["rules"] = json::array();
  for (const auto& rule : SBX_TRY(rules_for(sandbox_id), "making the policy"))
    document["rules"].push_back(document_rule(rule));
  return document;
}

}  // namespace sbx::policy
