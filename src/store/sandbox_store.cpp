#include "store/sandbox_store.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <random>
#include <set>

namespace sbx::store {
namespace {

using nlohmann::json;

constexpr std::string_view kColumns =
    "id, name, agent, state, reason, workspaces, cpus, memory_mib, env, labels, auto_stop_s, template_id, image_id, "
    "machine_id, accelerator, keeper_pid, keeper_start, created_at, last_used_at, started_at, stopped_at, "
    "protection";

State state_from(std::string_view word) {
  if (word == "running") return State::kRunning;
  if (word == "stopped") return State::kStopped;
  if (word == "removing") return State::kRemoving;
  return State::kCreating;
}

json workspaces_json(const Sandbox& s) {
  json list = json::array();
  for (const auto& w : s.workspaces) {
    list.push_back({{"path", w.path},
                    {"readonly", w.readonly},
                    {"file", w.file},
                    {"source", w.source},
                    {"late", w.late},
                    {"index", w.index}});
  }
  json document = {{"list", list}, {"next", s.next_workspace}};
  if (!s.clone.empty()) document["clone"] = s.clone;
  return document;
}

// Earlier versions have the list alone, numbered by its order.
void read_workspaces(const json& document, Sandbox& s) {
  const json list = document.is_object() ? document.value("list", json::array()) : document;
  if (!list.is_array()) return;
  for (const auto& w : list) {
    const int index = w.value("index", static_cast<int>(s.workspaces.size()));
    s.workspaces.push_back({w.value("path", ""), w.value("readonly", false), w.value("file", false),
                            w.value("source", ""), w.value("late", false), index});
    s.next_workspace = std::max(s.next_workspace, index + 1);
  }
  if (!document.is_object()) return;
  s.next_workspace = std::max(s.next_workspace, document.value("next", 0));
  s.clone = document.value("clone", "");
}

std::vector<Value> values_of(const Sandbox& s) {
  return {s.id,
          s.name,
          s.agent,
          std::string(to_string(s.state)),
          s.reason,
          workspaces_json(s).dump(),
          s.cpus,
          s.memory_mib,
          json(s.env).dump(),
          json(s.labels).dump(),
          s.auto_stop_s,
          s.template_id,
          s.image_id,
          s.machine_id,
          s.accelerator,
          s.keeper_pid,
          s.keeper_start,
          s.created_at,
          s.last_used_at,
          s.started_at,
          s.stopped_at,
          json{{"protect", s.protection.protect}, {"hide", s.protection.hide}, {"deny", s.protection.deny}}.dump()};
}

Sandbox sandbox_from(const Row& row) {
  Sandbox s;
  s.id = row.text(0);
  s.name = row.text(1);
  s.agent = row.text(2);
  s.state = state_from(row.text(3));
  s.reason = row.text(4);
  read_workspaces(json::parse(row.text(5), nullptr, false), s);
  s.cpus = row.integer(6);
  s.memory_mib = row.integer(7);
  if (const json env = json::parse(row.text(8), nullptr, false); env.is_array()) s.env = env;
  if (const json labels = json::parse(row.text(9), nullptr, false); labels.is_object()) s.labels = labels;
  s.auto_stop_s = row.integer(10);
  s.template_id = row.text(11);
  s.image_id = row.text(12);
  s.machine_id = row.text(13);
  s.accelerator = row.text(14);
  s.keeper_pid = row.integer(15);
  s.keeper_start = row.integer(16);
  s.created_at = row.integer(17);
  s.last_used_at = row.integer(18);
  s.started_at = row.integer(19);
  s.stopped_at = row.integer(20);
  if (const json protection = json::parse(row.text(21), nullptr, false); protection.is_object()) {
    s.protection.protect = protection.value("protect", std::vector<std::string>());
    s.protection.hide = protection.value("hide", std::vector<std::string>());
    s.protection.deny = protection.value("deny", false);
  }
  return s;
}

}  // namespace

std::string_view to_string(State state) {
  switch (state) {
    case State::kCreating:
      return "creating";
    case State::kRunning:
      return "running";
    case State::kStopped:
      return "stopped";
    case State::kRemoving:
      return "removing";
  }
  return "creating";
}

Result<void> SandboxStore::insert(const Sandbox& sandbox) {
  const std::string sql =
      "INSERT INTO sandboxes(" + std::string(kColumns) + ") VALUES(?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)";
  auto done = database_.run(sql, values_of(sandbox));
  if (!done && done.error().code == ErrorCode::kConflict) {
    return fail(ErrorCode::kConflict, "sandbox \"" + sandbox.name + "\" already exists");
  }
  return done;
}

Result<void> SandboxStore::update(const Sandbox& sandbox) {
  const std::string sql = "UPDATE sandboxes SET (" + std::string(kColumns) +
                          ") = (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?) WHERE id = ?1";
  SBX_CHECK(database_.run(sql, values_of(sandbox)), "updating sandbox " + sandbox.name);
  if (database_.changes() == 0) return fail(ErrorCode::kNotFound, "sandbox '" + sandbox.name + "' not found");
  return {};
}

Result<unsigned> SandboxStore::jail_slot(const std::string& id, unsigned count, const std::set<unsigned>& reserved) {
  std::optional<std::int64_t> own;
  SBX_CHECK(database_.run("SELECT slot FROM jail_slots WHERE sandbox_id = ?", {id},
                          [&](const Row& row) { own = row.integer(0); }),
            "reading the jail slots");
  if (own) return static_cast<unsigned>(*own);
  const auto slot = SBX_TRY(free_jail_slot(count, reserved), "taking a jail slot");
  SBX_CHECK(give_jail_slot(id, slot), "taking a jail slot");
  return slot;
}

Result<unsigned> SandboxStore::free_jail_slot(unsigned count, const std::set<unsigned>& reserved) {
  std::set<std::int64_t> taken(reserved.begin(), reserved.end());
  SBX_CHECK(database_.run("SELECT slot FROM jail_slots", {}, [&](const Row& row) { taken.insert(row.integer(0)); }),
            "reading the jail slots");
  std::vector<std::int64_t> free;
  for (std::int64_t slot = 0; slot < count; ++slot) {
    if (!taken.contains(slot)) free.push_back(slot);
  }
  if (free.empty()) {
    return fail(ErrorCode::kUnavailable,
                "there are " + std::to_string(count) + " sandboxes already, as many as can have uids of their own");
  }
  std::random_device chance;
  return static_cast<unsigned>(free[std::uniform_int_distribution<std::size_t>(0, free.size() - 1)(chance)]);
}

Result<void> SandboxStore::give_jail_slot(const std::string& id, unsigned slot) {
  return database_.run("INSERT INTO jail_slots(slot, sandbox_id) VALUES(?,?)", {std::int64_t{slot}, id});
}

Result<void> SandboxStore::remove(const std::string& id) {
  return database_.run("DELETE FROM sandboxes WHERE id = ?", {id});
}

Result<std::optional<Sandbox>> SandboxStore::find(const std::string& name_or_id) {
  std::optional<Sandbox> found;
  const std::string sql = "SELECT " + std::string(kColumns) + " FROM sandboxes WHERE name = ?1 OR id = ?1";
  SBX_CHECK(database_.run(sql, {name_or_id}, [&](const Row& row) { found = sandbox_from(row); }),
            "looking up a sandbox");
  return found;
}

Result<std::vector<Sandbox>> SandboxStore::all() {
  std::vector<Sandbox> sandboxes;
  const std::string sql = "SELECT " + std::string(kColumns) + " FROM sandboxes ORDER BY created_at, name";
  SBX_CHECK(database_.run(sql, {}, [&](const Row& row) { sandboxes.push_back(sandbox_from(row)); }),
            "listing the sandboxes");
  return sandboxes;
}

}  // namespace sbx::store
