#include "store/database.h"

#include <sqlite3.h>
#include <sys/stat.h>

#include <array>

namespace sbx::store {
namespace {

// Migration N brings user_version from N to N + 1. Never change one that has been released; append.
constexpr std::array kMigrations = {
    R"(CREATE TABLE sandboxes(
         id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, agent TEXT NOT NULL, state TEXT NOT NULL,
         reason TEXT NOT NULL DEFAULT '', workspaces TEXT NOT NULL DEFAULT '[]', cpus INTEGER NOT NULL,
         memory_mib INTEGER NOT NULL, env TEXT NOT NULL DEFAULT '[]', labels TEXT NOT NULL DEFAULT '{}',
         auto_stop_s INTEGER NOT NULL DEFAULT 30, template_id TEXT NOT NULL DEFAULT '',
         image_id TEXT NOT NULL DEFAULT '', machine_id TEXT NOT NULL DEFAULT '', accelerator TEXT NOT NULL DEFAULT '',
         keeper_pid INTEGER NOT NULL DEFAULT 0, keeper_start INTEGER NOT NULL DEFAULT 0,
         created_at INTEGER NOT NULL, last_used_at INTEGER NOT NULL DEFAULT 0, started_at INTEGER NOT NULL DEFAULT 0,
         stopped_at INTEGER NOT NULL DEFAULT 0) STRICT;
       CREATE TABLE meta(key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;)",
    // Policy. A rule with neither sandbox nor profile is for all; lists are JSON. The log outlives its sandbox.
    R"(CREATE TABLE policy_profiles(name TEXT PRIMARY KEY, created_at INTEGER NOT NULL) STRICT;
       CREATE TABLE policy_attachments(
         sandbox_id TEXT NOT NULL REFERENCES sandboxes(id) ON DELETE CASCADE,
         profile TEXT NOT NULL REFERENCES policy_profiles(name) ON DELETE CASCADE,
         PRIMARY KEY(sandbox_id, profile)) STRICT;
       CREATE TABLE policy_rules(
         id TEXT PRIMARY KEY, name TEXT NOT NULL, policy TEXT NOT NULL,
         sandbox_id TEXT REFERENCES sandboxes(id) ON DELETE CASCADE,
         profile TEXT REFERENCES policy_profiles(name) ON DELETE CASCADE,
         decision TEXT NOT NULL, resources TEXT NOT NULL, protocols TEXT NOT NULL, methods TEXT NOT NULL,
         paths TEXT NOT NULL, origin TEXT NOT NULL, created_via TEXT NOT NULL, created_at INTEGER NOT NULL) STRICT;
       CREATE TABLE policy_log(
         seq INTEGER PRIMARY KEY AUTOINCREMENT, sandbox_id TEXT NOT NULL, sandbox_name TEXT NOT NULL,
         at INTEGER NOT NULL, allowed INTEGER NOT NULL, kind TEXT NOT NULL, host TEXT NOT NULL, port INTEGER NOT NULL,
         protocol TEXT NOT NULL, method TEXT NOT NULL, path TEXT NOT NULL, rule TEXT NOT NULL, origin TEXT NOT NULL,
         reason TEXT NOT NULL, source_start INTEGER NOT NULL, source_number INTEGER NOT NULL) STRICT;
       CREATE INDEX policy_log_by_sandbox ON policy_log(sandbox_id, allowed, seq);)",
    // Published ports, of stopped sandboxes too: two of those may want the same one.
    R"(CREATE TABLE published_ports(
         sandbox_id TEXT NOT NULL REFERENCES sandboxes(id) ON DELETE CASCADE, host_ip TEXT NOT NULL,
         host_port INTEGER NOT NULL, sandbox_port INTEGER NOT NULL, protocol TEXT NOT NULL, ephemeral INTEGER NOT NULL,
         PRIMARY KEY(sandbox_id, host_ip, host_port, protocol)) STRICT;)",
    // From which uids a sandbox's jails get theirs: given at its first start, free again with its row.
    R"(CREATE TABLE jail_slots(
         slot INTEGER PRIMARY KEY,
         sandbox_id TEXT NOT NULL UNIQUE REFERENCES sandboxes(id) ON DELETE CASCADE) STRICT;)",
    // SSH agents that are forwarded, by the path of their socket.
    R"(CREATE TABLE ssh_agents(
         sandbox_id TEXT PRIMARY KEY REFERENCES sandboxes(id) ON DELETE CASCADE, socket TEXT NOT NULL) STRICT;)",
    "ALTER TABLE sandboxes ADD COLUMN protection TEXT NOT NULL DEFAULT '{}';",
};

std::unexpected<Error> fail_sqlite(sqlite3* handle, std::string_view what) {
  const int code = sqlite3_extended_errcode(handle);
  const bool taken = code == SQLITE_CONSTRAINT_UNIQUE || code == SQLITE_CONSTRAINT_PRIMARYKEY;
  std::string message = std::string(what) + ": " + sqlite3_errmsg(handle);
  if ((code & 0xff) == SQLITE_FULL) {
    message += "; make room on the file system of the store (SBX_HOME, else ~/.local/share/sbx) and try again";
    return fail(ErrorCode::kUnavailable, std::move(message));
  }
  return fail(taken ? ErrorCode::kConflict : ErrorCode::kInternal, std::move(message));
}

}  // namespace

std::int64_t Row::integer(int column) const { return sqlite3_column_int64(statement_, column); }

std::string Row::text(int column) const {
  const auto* data = reinterpret_cast<const char*>(sqlite3_column_text(statement_, column));
  return data == nullptr ? "" : std::string(data, static_cast<std::size_t>(sqlite3_column_bytes(statement_, column)));
}

void Database::Closer::operator()(sqlite3* handle) const { sqlite3_close_v2(handle); }
Database::Database(Database&&) noexcept = default;
Database& Database::operator=(Database&&) noexcept = default;
Database::~Database() = default;

Result<Database> Database::open(const std::filesystem::path& path) {
  sqlite3* handle = nullptr;
  const int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX;
  const int code = sqlite3_open_v2(path.c_str(), &handle, flags, nullptr);
  Database database(handle);
  if (code != SQLITE_OK) return fail_sqlite(handle, "opening " + path.native());
  ::chmod(path.c_str(), 0600);
  sqlite3_busy_timeout(handle, 5000);
  // synchronous=FULL: a row must be on disk before the process it names is spawned.
  for (const char* pragma : {"PRAGMA journal_mode=WAL", "PRAGMA synchronous=FULL", "PRAGMA foreign_keys=ON"}) {
    SBX_CHECK(database.run(pragma), "setting up the store");
  }
  SBX_CHECK(database.migrate(), "bringing the store up to date");
  return database;
}

Result<void> Database::run(std::string_view sql, const std::vector<Value>& values,
                           const std::function<void(const Row&)>& each) {
  sqlite3_stmt* raw = nullptr;
  if (sqlite3_prepare_v2(handle_.get(), sql.data(), static_cast<int>(sql.size()), &raw, nullptr) != SQLITE_OK) {
    return fail_sqlite(handle_.get(), "preparing a statement");
  }
  const std::unique_ptr<sqlite3_stmt, int (*)(sqlite3_stmt*)> statement(raw, sqlite3_finalize);
  for (std::size_t i = 0; i < values.size(); ++i) {
    const int index = static_cast<int>(i) + 1;
    if (const auto* number = std::get_if<std::int64_t>(&values[i])) {
      sqlite3_bind_int64(raw, index, *number);
    } else if (const auto* text = std::get_if<std::string>(&values[i])) {
      sqlite3_bind_text(raw, index, text->data(), static_cast<int>(text->size()), SQLITE_TRANSIENT);
    } else {
      sqlite3_bind_null(raw, index);
    }
  }
  for (;;) {
    const int code = sqlite3_step(raw);
    if (code == SQLITE_DONE) return {};
    if (code != SQLITE_ROW) return fail_sqlite(handle_.get(), "running a statement");
    if (each) each(Row(raw));
  }
}

int Database::changes() const { return sqlite3_changes(handle_.get()); }
int Database::newest_version() { return static_cast<int>(kMigrations.size()); }

Result<int> Database::version() {
  int version = 0;
  SBX_CHECK(run("PRAGMA user_version", {}, [&](const Row& row) { version = static_cast<int>(row.integer(0)); }),
            "reading the version");
  return version;
}

Result<void> Database::migrate() {
  int at = SBX_TRY(version(), "migrating");
  if (at > newest_version()) {
    return fail(ErrorCode::kConflict,
                "the store was written by a newer sbx (schema " + std::to_string(at) + "); upgrade sbx");
  }
  for (; at < newest_version(); ++at) {
    const std::string script = "BEGIN IMMEDIATE;" + std::string(kMigrations[static_cast<std::size_t>(at)]) +
                               "PRAGMA user_version=" + std::to_string(at + 1) + ";COMMIT;";
    if (sqlite3_exec(handle_.get(), script.c_str(), nullptr, nullptr, nullptr) != SQLITE_OK) {
      auto error = fail_sqlite(handle_.get(), "migrating the store to schema " + std::to_string(at + 1));
      sqlite3_exec(handle_.get(), "ROLLBACK", nullptr, nullptr, nullptr);
      return error;
    }
  }
  return {};
}

}  // namespace sbx::store
