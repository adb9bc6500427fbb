// The sandboxes table: what the daemon knows of each sandbox across its own restarts. Every call is one committed
// transaction. Thread safety: none; the daemon's event loop.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "store/database.h"

namespace sbx::store {

struct Workspace {
  std::string path;  // absolute, in the guest
  bool readonly = false;
  bool file = false;        // a single file instead of a folder
  std::string source = {};  // absolute, on the host; "": the same as `path`
  bool late = false;        // added to a sandbox that was there already
  int index = 0;            // its name on the files port; no other workspace of the sandbox has or had it

  const std::string& on_host() const { return source.empty() ? path : source; }
  bool operator==(const Workspace&) const = default;
};

// Of the host from what the guest does in the workspaces (files/guard.h).
struct Protection {
  std::vector<std::string> protect;  // beside the defaults
  std::vector<std::string> hide;
  bool deny = false;
  bool operator==(const Protection&) const = default;
};

// creating: a row without a usable sandbox yet; removing: its files may be half gone.
enum class State { kCreating, kRunning, kStopped, kRemoving };
std::string_view to_string(State state);

struct Sandbox {
  std::string id;  // UUID
  std::string name;
  std::string agent;
  State state = State::kCreating;
  std::string reason;  // why it stopped; for people
  std::vector<Workspace> workspaces;
  int next_workspace = 0;  // the next index
  std::string clone =
      {};  // where its clone of the first workspace is in the guest; "": it works on the workspace itself
  std::int64_t cpus = 1;
  std::int64_t memory_mib = 2048;
  std::vector<std::string> env;  // "K=V"
  std::map<std::string, std::string> labels;
  std::int64_t auto_stop_s = 30;  // 0: never
  std::string template_id;
  std::string image_id;
  Protection protection;
  std::string machine_id;  // 32 hex digits
  std::string accelerator;
  std::int64_t keeper_pid = 0;
  std::int64_t keeper_start = 0;  // start time in clock ticks since boot (proc_pid_stat(5), field 22)
  std::int64_t created_at = 0;    // this and the following: ms since 1970, 0 for never
  std::int64_t last_used_at = 0;
  std::int64_t started_at = 0;
  std::int64_t stopped_at = 0;
};

class SandboxStore {
 public:
  explicit SandboxStore(Database& database) : database_(database) {}

  // kConflict if the name is taken.
  Result<void> insert(const Sandbox& sandbox);
  // The number below `count` from which the uids of a sandbox's jails come (vm/jail.h). It has the same one for as long
  // as its row is there, and no other sandbox has it. A new one is taken by chance, so that the sandboxes of several
  // instances on one machine hardly share one either. kUnavailable if all are taken.
  // `reserved`: taken too, by who has no row yet.
  Result<unsigned> jail_slot(const std::string& id, unsigned count, const std::set<unsigned>& reserved = {});
  // One that nobody has, for who will get a row later, and (then) give_jail_slot().
  Result<unsigned> free_jail_slot(unsigned count, const std::set<unsigned>& reserved);
  Result<void> give_jail_slot(const std::string& id, unsigned slot);
  // Replaces the row with this id; kNotFound if there is none.
  Result<void> update(const Sandbox& sandbox);
  Result<void> remove(const std::string& id);
  // By name, or by id.
  Result<std::optional<Sandbox>> find(const std::string& name_or_id);
  // In order of creation.
  Result<std::vector<Sandbox>> all();

 private:
  Database& database_;
};

}  // namespace sbx::store
