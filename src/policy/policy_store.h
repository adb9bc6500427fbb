// The policy that a person has set up: rules for every sandbox, for one sandbox, or of a profile (a named set that is
// attached to sandboxes). What this sandbox is allowed is the union of all that applies to it.
//
// The rules of a sandbox and its attachments go with its row in the sandboxes table. Every call is one committed
// transaction. Thread safety: none; the daemon's event loop.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "policy/subscribers.h"
#include "store/database.h"

namespace sbx::policy {

// Which sandboxes a rule is for: both empty for all, or one of the two.
struct Scope {
  std::string sandbox_id;
  std::string profile;
  bool operator==(const Scope&) const = default;
};

struct StoredRule {
  std::string id;  // UUID; made by add()
  std::string name;
  std::string policy = "local-policy";  // what it is shown under; a kit's rules under the kit's id
  Scope scope;
  std::string decision;  // "allow" or "deny"
  std::vector<std::string> resources;
  std::vector<std::string> protocols;  // empty: tcp to allow, tcp and udp to deny
  std::vector<std::string> methods;    // empty: any
  std::vector<std::string> paths;      // empty: any; needs methods (ANY will do)
  std::string origin = "local";        // "local" or "kit"
  std::string created_via = "added";   // "default" (a preset's), "added" (by a person), "provisioned" (at creation)
  std::int64_t created_at = 0;         // ms since 1970
};

struct Profile {
  std::string name;
  std::vector<std::string> sandbox_ids;
  std::size_t rules = 0;
};

// Which rules to take something away from; at least one of id and resource.
struct Selector {
  std::string id;
  std::string resource;
  Scope scope;                       // for resource
  std::vector<std::string> methods;  // for resource: rules with exactly these only
  std::vector<std::string> paths;
};

class PolicyStore {
 public:
  explicit PolicyStore(store::Database& database) : database_(database) {}

  // "allow-all", "balanced", "deny-all", or nullopt: never initialised.
  Result<std::optional<std::string>> preset();
  // kConflict if there is one already.
  Result<void> initialise(const std::string& preset);
  // To be called before the first sandbox starts: the default preset unless there is one. True if it was made now.
  Result<bool> ensure_initialised();
  // Removes all rules and profiles and the preset: nothing is allowed until the next initialise().
  Result<void> reset();

  // Gives it an id and a name (unless it has one), and every text its one spelling. kInvalid says what is wrong.
  Result<StoredRule> add(StoredRule rule);
  // Takes the rule with this id away, or the resource out of every rule of the scope that has it. What was removed
  // from, as it was before. kNotFound "rule not found".
  Result<std::vector<StoredRule>> remove(const Selector& selector);
  // Oldest first.
  Result<std::vector<StoredRule>> rules();
  // Those that apply to this sandbox.
  Result<std::vector<StoredRule>> rules_for(const std::string& sandbox_id);

  Result<void> add_profile(const std::string& name);
  Result<void> remove_profile(const std::string& name);
  Result<std::vector<Profile>> profiles();
  Result<void> attach_profile(const std::string& name, const std::string& sandbox_id);
  Result<void> detach_profile(const std::string& name, const std::string& sandbox_id);

  // The PolicyDocument (docs/development/protocols.md) of a sandbox, for its gateway and for RuleSet. "" for that of
  // the global rules alone.
  Result<nlohmann::json> document(const std::string& sandbox_id);

  // Called after every change that may alter document(), with the sandbox's id, or "" where it may be any sandbox's.
  [[nodiscard]] Subscription on_change(std::function<void(const std::string& sandbox_id)> callback) {
    return changed_.add(std::move(callback));
  }

 private:
  Result<void> transaction(const std::function<Result<void>()>& work);
  Result<void> insert(const StoredRule& rule);
  Result<void> require_profile(const std::string& name);
  Result<std::vector<StoredRule>> select(const std::string& where, const std::vector<store::Value>& values);

  store::Database& database_;
  Subscribers<const std::string&> changed_;
};

// Checks a rule as RuleSet and people would, and gives every text its one spelling.
Result<StoredRule> checked(StoredRule rule);

}  // namespace sbx::policy
