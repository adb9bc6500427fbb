// What the gateways decided: kept in the store, per sandbox the newest 2,000 that were allowed and the newest 2,000
// that were not (so that a flood of one cannot push out the other), 100,000 in all; and told to followers as it
// happens. Entries of a sandbox outlive it.
//
// Entries come from a process that reads a guest's bytes: every member is bounded and shown in printable ASCII
// ("\xNN" for the rest), queries are cut off paths (they hold tokens), and what is no entry at all is dropped.
// Thread safety: none; the daemon's event loop.
#pragma once

#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "policy/subscribers.h"
#include "store/database.h"

namespace sbx::policy {

struct LogFilter {
  std::string sandbox_id;  // "": all
  std::string type;        // "", "all" or "network"; nothing else has a log yet, so "filesystem" finds nothing
  std::size_t limit = 0;   // most rows of each verdict; 0: all
};

class PolicyLog {
 public:
  explicit PolicyLog(store::Database& database) : database_(database) {}
  ~PolicyLog();
  PolicyLog(const PolicyLog&) = delete;
  PolicyLog& operator=(const PolicyLog&) = delete;

  // One LogEntry (docs/development/protocols.md). One that was recorded before (a gateway tells its newest again to
  // whoever connects anew) is ignored. Followers hear of it before this returns; it reaches the disk in batches, but
  // for what the SSH agent was asked: that is on the disk when this succeeds.
  Result<void> record(const std::string& sandbox_id, const std::string& sandbox_name, const nlohmann::json& entry);

  // {"allowed_hosts":[E],"blocked_hosts":[E]}, latest first; E is one host, port and rule of one sandbox:
  // {"host","port","vm_name","proxy_type","protocol","rule","origin","reason","last_seen","since","count_since"}.
  Result<nlohmann::json> summary(const LogFilter& filter);
  // The single decisions, latest last, as followers get them.
  Result<std::vector<nlohmann::json>> latest(const LogFilter& filter);
  // The id of the sandbox that had this name last, of those that are in the log.
  Result<std::optional<std::string>> id_of_removed(const std::string& sandbox_name);

  // With every entry from now on: {"at","sandbox","sandbox_id","kind","host","port","protocol","method"?,"path"?,
  // "allowed","rule","origin","reason"}.
  [[nodiscard]] Subscription follow(std::function<void(const nlohmann::json& entry)> callback) {
    return followers_.add(std::move(callback));
  }

  // Writes what waits, and keeps it (the newest) if that fails. Reading does it too.
  Result<void> flush();

 private:
  struct Mark {  // of a gateway's newest entry
    std::int64_t start = 0;
    std::int64_t number = 0;
  };
  bool is_known(const std::string& sandbox_id, const nlohmann::json& entry);

  store::Database& database_;
  Subscribers<const nlohmann::json&> followers_;
  std::vector<nlohmann::json> waiting_;
  std::int64_t waiting_since_ = 0;
  std::map<std::string, Mark> marks_;  // by sandbox id
};

// `entry` as it may be kept and shown; null if it is none. "id" is kept where it has its form.
nlohmann::json sanitised_entry(const nlohmann::json& entry);

}  // namespace sbx::policy
