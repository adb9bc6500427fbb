// The commands of `sbx policy`, with their options as plain values.
#pragma once

#include <string>
#include <vector>

#include "cli/api_client.h"

namespace sbx::cli {

// Of `policy allow|deny|rm network`. Lists may be given as several values and as comma lists.
struct PolicyRuleOptions {
  std::vector<std::string> resources, protocols, methods;
  std::string path, sandbox, profile;
  std::string id;  // rm
  bool force = false;
};
struct PolicyListOptions {
  std::string sandbox, source, decision, type, protocol, created_via;
  bool wide = false, json = false;
};
struct PolicyCheckOptions {
  std::string target, sandbox, protocol, method, path;
  bool json = false, verbose = false;
};
struct PolicyLogOptions {
  std::string sandbox, type;
  long limit = 0;
  bool json = false, quiet = false, follow = false;
};

Result<int> policy_init(const ApiClient&, const std::string& preset);
Result<int> policy_add(const ApiClient&, const std::string& decision, const PolicyRuleOptions&);
Result<int> policy_remove(const ApiClient&, const PolicyRuleOptions&);
Result<int> policy_list(const ApiClient&, const PolicyListOptions&);
Result<int> policy_inspect(const ApiClient&, const std::string& rule_or_policy, bool json);
Result<int> policy_check(const ApiClient&, const PolicyCheckOptions&);
Result<int> policy_log(const ApiClient&, const PolicyLogOptions&);
Result<int> policy_reset(const ApiClient&, bool force);
Result<int> policy_profile_list(const ApiClient&, bool json);
// "create", "rm", "attach", "detach"
Result<int> policy_profile_change(const ApiClient&, const std::string& verb, const std::string& profile,
                                  const std::string& sandbox);

// Asks for a preset on a terminal if there is none yet; elsewhere the daemon takes the default and says so.
Result<void> choose_policy_once(const ApiClient&);

// "a,b" and "c" as one list; blanks around commas go.
std::vector<std::string> split_lists(const std::vector<std::string>& values);
// "network: 42 allow, 1 deny; http: 1 allow" of an array of rules as the daemon gives them.
std::string summarise_rules(const nlohmann::json& rules);

}  // namespace sbx::cli
