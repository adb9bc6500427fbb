#include "cli/policy_commands.h"

#include <unistd.h>

#include <algorithm>
#include <ctime>
#include <iostream>
#include <map>

#include "cli/commands.h"
#include "cli/table.h"
#include "store/clock.h"

namespace sbx::cli {

using nlohmann::json;

namespace {

std::string join(const json& list) {
  std::string text;
  for (const auto& entry : list) text += (text.empty() ? "" : ", ") + entry.get<std::string>();
  return text;
}

json list_member(const json& object, const char* key) { return object.value(key, json::array()); }

bool is_http(const json& rule) { return rule.contains("methods") || rule.contains("paths"); }

// "10:15:25 29-Jan", local time.
std::string clock_text(const std::string& rfc3339) {
  const auto ms = store::parse_rfc3339(rfc3339);
  if (!ms) return rfc3339;
  const std::time_t seconds = *ms / 1000;
  std::tm local{};
  ::localtime_r(&seconds, &local);
  char text[32];
  std::strftime(text, sizeof text, "%H:%M:%S %d-%b", &local);
  return text;
}

std::string host_and_port(const json& entry) {
  const std::string host = entry.value("host", "");
  // A look-up is for no port; 53 is where it was asked.
  const int port = entry.value("kind", entry.value("proxy_type", "")) == "dns" ? 0 : entry.value("port", 0);
  const bool v6 = host.find(':') != std::string::npos && !host.starts_with("SHA256:");  // a key of the SSH agent
  return (v6 ? "[" + host + "]" : host) + (port == 0 ? "" : ":" + std::to_string(port));
}

Result<std::string> ask_preset() {
  std::cerr << "Choose a network policy for all sandboxes:\n"
               "  1) balanced   what coding agents need: AI services, package registries, code hosts (recommended)\n"
               "  2) allow-all  everything but this host, private networks and metadata services\n"
               "  3) deny-all   nothing until you allow it\n"
               "Choice [1]: ";
  std::string answer;
  if (!std::getline(std::cin, answer))
    return fail(ErrorCode::kInvalid, "no policy chosen; run: sbx policy init PRESET");
  if (answer.empty() || answer == "1" || answer == "balanced") return "balanced";
  if (answer == "2" || answer == "allow-all") return "allow-all";
  if (answer == "3" || answer == "deny-all") return "deny-all";
  return fail(ErrorCode::kInvalid, "\"" + answer + "\" is no choice; run: sbx policy init balanced|allow-all|deny-all");
}

bool on_terminal() { return ::isatty(0) != 0 && ::isatty(2) != 0; }

bool wanted(const json& rule, const PolicyListOptions& o) {
  const json protocols = list_member(rule, "protocols");
  const bool type_fits = o.type.empty() || o.type == "all" || (o.type == "network" && !is_http(rule)) ||
                         (o.type == "http" && is_http(rule));
  return type_fits && (o.source.empty() || rule.value("origin", "") == o.source) &&
         (o.decision.empty() || rule.value("decision", "") == o.decision) &&
         (o.created_via.empty() || rule.value("created_via", "") == o.created_via) &&
         (o.protocol.empty() || std::find(protocols.begin(), protocols.end(), o.protocol) != protocols.end());
}

std::string concise_table(const json& rules) {
  // One line per policy and what it applies to, in the order of their first rules.
  std::vector<std::pair<std::vector<std::string>, json>> groups;
  for (const auto& rule : rules) {
    const std::vector<std::string> key = {rule.value("policy_id", ""), rule.value("origin", ""),
                                          rule.value("applies_to", "")};
    auto group = std::ranges::find(groups, key, [](const auto& entry) { return entry.first; });
    if (group == groups.end()) group = groups.insert(groups.end(), {key, json::array()});
    group->second.push_back(rule);
  }
  std::vector<std::vector<std::string>> table = {{"POLICY", "SOURCE", "APPLIES TO", "SUMMARY"}};
  for (auto& [key, members] : groups) {
    auto row = key;
    row.push_back(summarise_rules(members));
    table.push_back(std::move(row));
  }
  return format_table(table);
}

std::string wide_table(const json& rules) {
  std::vector<std::vector<std::string>> table = {{"POLICY", "APPLIES TO", "RULE", "RULE ID", "TYPE", "METHOD", "PATH",
                                                  "DECISION", "PROTOCOLS", "RESOURCE", "STATUS", "CREATED VIA"}};
  for (const auto& rule : rules) {
    for (const auto& resource : list_member(rule, "resources")) {
      table.push_back({rule.value("policy_id", ""), rule.value("applies_to", ""), rule.value("name", ""),
                       rule.value("id", ""), is_http(rule) ? "http" : "network",
                       is_http(rule) && !rule.contains("methods") ? "ANY" : join(list_member(rule, "methods")),
                       join(list_member(rule, "paths")), rule.value("decision", ""),
                       join(list_member(rule, "protocols")), resource.get<std::string>(), rule.value("status", ""),
                       rule.value("created_via", "")});
    }
  }
  return format_table(table);
}

void print_rule(const json& rule) {
  std::vector<std::vector<std::string>> table = {{"Rule:", rule.value("name", "")},
                                                 {"ID:", rule.value("id", "")},
                                                 {"Policy:", rule.value("policy_id", "")},
                                                 {"Source:", rule.value("origin", "")},
                                                 {"Created via:", rule.value("created_via", "")},
                                                 {"Created at:", rule.value("created_at", "")},
                                                 {"Applies to:", rule.value("applies_to", "")},
                                                 {"Decision:", rule.value("decision", "")},
                                                 {"Protocols:", join(list_member(rule, "protocols"))}};
  if (rule.contains("methods")) table.push_back({"Methods:", join(rule["methods"])});
  if (rule.contains("paths")) table.push_back({"Paths:", join(rule["paths"])});
  for (const auto& resource : list_member(rule, "resources"))
    table.push_back({table.back()[0] == "Resources:" || table.back()[0].empty() ? "" : "Resources:", resource});
  std::cout << format_table(table);
}

void print_log_section(const char* title, const json& entries) {
  if (entries.empty()) return;
  std::cout << title << ":\n";
  std::vector<std::vector<std::string>> table = {
      {"SANDBOX", "TYPE", "HOST", "PROXY", "RULE", "REASON", "LAST SEEN", "COUNT"}};
  for (const auto& entry : entries) {
    table.push_back({entry.value("vm_name", ""), "network", host_and_port(entry), entry.value("proxy_type", ""),
                     entry.value("rule", ""), entry.value("reason", ""), clock_text(entry.value("last_seen", "")),
                     std::to_string(entry.value("count_since", 0))});
  }
  std::cout << format_table(table);
}

std::string follow_line(const json& entry) {
  if (entry.contains("missed")) return "(" + std::to_string(entry.value("missed", 0)) + " decisions not shown)";
  std::string line = clock_text(entry.value("at", "")) + "  " +
                     (entry.value("allowed", false) ? "allowed" : "blocked") + "  " + entry.value("sandbox", "") +
                     "  " + entry.value("kind", "") + "  " + host_and_port(entry);
  if (entry.contains("method")) line += "  " + entry.value("method", "") + " " + entry.value("path", "");
  return line + "  " + entry.value("reason", "");
}

Result<int> follow_log(const ApiClient& client, const std::string& query, const PolicyLogOptions& options) {
  std::string rest;
  const auto print = [&](std::string_view piece) -> Result<void> {
    rest += piece;
    for (auto end = rest.find('\n'); end != std::string::npos; end = rest.find('\n')) {
      const std::string line = rest.substr(0, end);
      rest.erase(0, end + 1);
      const json entry = json::parse(line, nullptr, false);
      if (!entry.is_object()) continue;
      std::cout << (options.json ? line : options.quiet ? entry.value("host", "") : follow_line(entry)) << std::endl;
      if (!std::cout) return fail(ErrorCode::kUnavailable, "nobody reads the output");
    }
    return {};
  };
  SBX_CHECK(client.stream("/v1/policy/log/follow" + query, print), "following the policy log");
  return 0;
}

}  // namespace

std::vector<std::string> split_lists(const std::vector<std::string>& values) {
  std::vector<std::string> list;
  for (std::string_view rest : values) {
    for (;;) {
      const auto comma = rest.find(',');
      std::string_view entry = rest.substr(0, comma);
      while (entry.starts_with(' ')) entry.remove_prefix(1);
      while (entry.ends_with(' ')) entry.remove_suffix(1);
      if (!entry.empty()) list.emplace_back(entry);
      if (comma == std::string_view::npos) break;
      rest.remove_prefix(comma + 1);
    }
  }
  return list;
}

std::string summarise_rules(const json& rules) {
  std::map<std::string, std::size_t> counts;
  for (const auto& rule : rules)
    counts[(is_http(rule) ? "http " : "network ") + rule.value("decision", "")] +=
        list_member(rule, "resources").size();
  std::string text;
  for (const std::string type : {"network", "http"}) {
    std::string part;
    for (const char* decision : {"allow", "deny"}) {
      if (const auto count = counts[type + " " + decision]; count != 0)
        part += (part.empty() ? "" : ", ") + std::to_string(count) + " " + decision;
    }
    if (!part.empty()) text += (text.empty() ? "" : "; ") + type + ": " + part;
  }
  return text;
}

Result<void> choose_policy_once(const ApiClient& client) {
  if (!on_terminal()) return {};
  const json policy = SBX_TRY(client.call("GET", "/v1/policy"), "reading the policy");
  if (policy.value("initialized", true)) return {};
  const std::string preset = SBX_TRY(ask_preset(), "choosing a policy");
  auto done = client.call("POST", "/v1/policy/init", {{"preset", preset}});
  if (!done && done.error().code != ErrorCode::kConflict) return std::unexpected(done.error());
  return {};
}

Result<int> policy_init(const ApiClient& client, const std::string& preset) {
  std::string chosen = preset;
  if (chosen.empty()) {
    if (!on_terminal()) return fail(ErrorCode::kInvalid, "name a preset: sbx policy init balanced|allow-all|deny-all");
    chosen = SBX_TRY(ask_preset(), "choosing a policy");
  }
  SBX_TRY(client.call("POST", "/v1/policy/init", {{"preset", chosen}}), "initialising the policy");
  std::cout << "Network policy initialized: " << chosen << "\n";
  return 0;
}

Result<int> policy_add(const ApiClient& client, const std::string& decision, const PolicyRuleOptions& options) {
  if (options.resources.size() > 1) {
    return fail(ErrorCode::kInvalid, "give all resources as one list, as in a.com,b.com; for one sandbox only pass " +
                                         std::string("--sandbox NAME"));
  }
  json body = {{"decision", decision},
               {"resources", split_lists(options.resources)},
               {"protocols", split_lists(options.protocols)},
               {"methods", split_lists(options.methods)},
               {"sandbox", options.sandbox},
               {"profile", options.profile}};
  if (!options.path.empty()) body["paths"] = json::array({options.path});
  const json rule = SBX_TRY(client.call("POST", "/v1/policy/rules", body), "adding a rule");
  std::cout << "Policy added: " << rule.value("id", "") << " (" << join(list_member(rule, "resources")) << ")\n";
  return 0;
}

Result<int> policy_remove(const ApiClient& client, const PolicyRuleOptions& options) {
  const auto resources = split_lists(options.resources);
  if (options.id.empty() && resources.empty())
    return fail(ErrorCode::kInvalid, "at least one selector is required: use --id or --resource");
  json body = {{"id", options.id},
               {"methods", split_lists(options.methods)},
               {"sandbox", options.sandbox},
               {"profile", options.profile}};
  if (!options.path.empty()) body["paths"] = json::array({options.path});
  if (!options.force)
    SBX_CHECK(confirm("Remove the policy " + (options.id.empty() ? join(json(resources)) : options.id) + "?"),
              "asking");
  if (resources.empty()) {
    const json done = SBX_TRY(client.call("POST", "/v1/policy/rules/remove", body), "removing a rule");
    for (const auto& rule : list_member(done, "removed_from"))
      std::cout << "Policy removed: resources=" << join(list_member(rule, "resources")) << "\n";
    return 0;
  }
  for (const auto& resource : resources) {
    body["resource"] = resource;
    SBX_TRY(client.call("POST", "/v1/policy/rules/remove", body), "removing a rule");
    std::cout << "Policy removed: resources=" << resource << "\n";
  }
  return 0;
}

Result<int> policy_list(const ApiClient& client, const PolicyListOptions& options) {
  const std::string query = options.sandbox.empty() ? "" : "?sandbox=" + percent_encode(options.sandbox);
  const json answer = SBX_TRY(client.call("GET", "/v1/policy/rules" + query), "listing the rules");
  json rules = json::array();
  for (const auto& rule : list_member(answer, "rules")) {
    if (wanted(rule, options)) rules.push_back(rule);
  }
  if (options.json)
    print_json({{"rules", rules}});
  else if (rules.empty())
    std::cout << "No policy rules\n";
  else
    std::cout << (options.wide ? wide_table(rules) : concise_table(rules));
  return 0;
}

Result<int> policy_inspect(const ApiClient& client, const std::string& rule_or_policy, bool as_json) {
  const json answer = SBX_TRY(client.call("GET", "/v1/policy/rules"), "listing the rules");
  json members = json::array();
  for (const auto& rule : list_member(answer, "rules")) {
    if (rule.value("id", "") == rule_or_policy || rule.value("name", "") == rule_or_policy) {
      if (as_json)
        print_json(rule);
      else
        print_rule(rule);
      return 0;
    }
    if (rule.value("policy_id", "") == rule_or_policy) members.push_back(rule);
  }
  if (members.empty()) return fail(ErrorCode::kNotFound, "policy or rule not found: " + rule_or_policy);
  if (as_json) {
    print_json({{"policy_id", rule_or_policy}, {"rules", members}});
    return 0;
  }
  std::cout << "Policy:  " << rule_or_policy << "\nSummary: " << summarise_rules(members) << "\n";
  for (const auto& rule : members) {
    std::cout << "\n";
    print_rule(rule);
  }
  return 0;
}

Result<int> policy_check(const ApiClient& client, const PolicyCheckOptions& options) {
  json body = {
      {"target", options.target}, {"sandbox", options.sandbox}, {"method", options.method}, {"path", options.path}};
  if (!options.protocol.empty()) body["protocol"] = options.protocol;
  const json view = SBX_TRY(client.call("POST", "/v1/policy/check", body), "checking");
  if (options.json) {
    print_json(view);
    return 0;
  }
  std::cout << (view.value("allowed", false) ? "Allowed: " : "Denied: ") << host_and_port(view) << " ("
            << view.value("reason", "") << ")\n";
  if (view.value("depends_on_request", false))
    std::cout << "  HTTP rules decide request by request; pass --method and --path to check one\n";
  if (options.verbose) {
    std::cout << format_table({{"  action:", view.value("action", "")},
                               {"  context:", view.value("context", "")},
                               {"  rule:", view.value("rule", "")},
                               {"  origin:", view.value("origin", "")}});
  }
  return 0;
}

Result<int> policy_log(const ApiClient& client, const PolicyLogOptions& options) {
  std::string query = "?type=" + percent_encode(options.type) + "&sandbox=" + percent_encode(options.sandbox);
  if (options.limit != 0) query += "&limit=" + std::to_string(options.limit);
  if (options.follow) return follow_log(client, query, options);
  const json answer = SBX_TRY(client.call("GET", "/v1/policy/log" + query), "reading the policy log");
  const json allowed = list_member(answer, "allowed_hosts");
  const json blocked = list_member(answer, "blocked_hosts");
  if (options.json) {
    print_json({{"blocked_hosts", blocked}, {"allowed_hosts", allowed}});
    return 0;
  }
  if (options.quiet) {
    for (const auto* list : {&allowed, &blocked})
      for (const auto& entry : *list) std::cout << entry.value("host", "") << "\n";
    return 0;
  }
  if (allowed.empty() && blocked.empty()) std::cout << "No policy log entries found\n";
  print_log_section("Allowed requests", allowed);
  if (!allowed.empty() && !blocked.empty()) std::cout << "\n";
  print_log_section("Blocked requests", blocked);
  return 0;
}

Result<int> policy_reset(const ApiClient& client, bool force) {
  if (!force)
    SBX_CHECK(confirm("Remove every network rule and profile? Sandboxes reach nothing until a new policy is chosen."),
              "asking");
  SBX_TRY(client.call("POST", "/v1/policy/reset", json::object()), "resetting the policy");
  std::cout << "Policy reset\n";
  if (on_terminal()) return policy_init(client, "");
  std::cout << "Choose one with: sbx policy init balanced|allow-all|deny-all\n";
  return 0;
}

Result<int> policy_profile_list(const ApiClient& client, bool as_json) {
  const json answer = SBX_TRY(client.call("GET", "/v1/policy/profiles"), "listing the profiles");
  const json profiles = list_member(answer, "profiles");
  if (as_json) {
    print_json(answer);
    return 0;
  }
  std::vector<std::vector<std::string>> table = {{"PROFILE", "RULES", "SANDBOXES"}};
  for (const auto& profile : profiles)
    table.push_back({profile.value("name", ""), std::to_string(profile.value("rules", 0)),
                     join(list_member(profile, "sandboxes"))});
  std::cout << (profiles.empty() ? "No profiles found\n" : format_table(table));
  return 0;
}

Result<int> policy_profile_change(const ApiClient& client, const std::string& verb, const std::string& profile,
                                  const std::string& sandbox) {
  const bool adds = verb == "create" || verb == "attach";
  const std::string target =
      (sandbox.empty() ? "/v1/policy" : sandbox_target(sandbox)) + "/profiles/" + percent_encode(profile);
  SBX_TRY(client.call(adds ? "PUT" : "DELETE", target), "changing a profile");
  if (verb == "create") std::cout << "Profile '" << profile << "' created\n";
  if (verb == "rm") std::cout << "Profile '" << profile << "' removed\n";
  if (verb == "attach") std::cout << "Profile '" << profile << "' attached to '" << sandbox << "'\n";
  if (verb == "detach") std::cout << "Profile '" << profile << "' detached from '" << sandbox << "'\n";
  return 0;
}

}  // namespace sbx::cli
