// A SQLite database with the project's schema: opened in WAL mode, brought up to date by numbered migrations
// (PRAGMA user_version). Blocking, but every statement here touches a few rows. Thread safety: none; one thread.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/result.h"

struct sqlite3;
struct sqlite3_stmt;

namespace sbx::store {

using Value = std::variant<std::nullptr_t, std::int64_t, std::string>;

// One row of a running query. Columns count from 0.
class Row {
 public:
  explicit Row(sqlite3_stmt* statement) : statement_(statement) {}
  std::int64_t integer(int column) const;
  std::string text(int column) const;

 private:
  sqlite3_stmt* statement_;
};

class Database {
 public:
  // Opens (0600) or makes the file and applies the migrations it lacks. A file of a newer sbx is refused (kConflict).
  static Result<Database> open(const std::filesystem::path& path);
  Database(Database&&) noexcept;
  Database& operator=(Database&&) noexcept;
  ~Database();

  // Runs one statement to its end; `each` sees every row. A broken uniqueness rule is kConflict.
  Result<void> run(std::string_view sql, const std::vector<Value>& values = {},
                   const std::function<void(const Row&)>& each = {});
  // Rows touched by the last run().
  int changes() const;
  static int newest_version();
  Result<int> version();

 private:
  struct Closer {
    void operator()(sqlite3* handle) const;
  };
  explicit Database(sqlite3* handle) : handle_(handle) {}
  Result<void> migrate();
  std::unique_ptr<sqlite3, Closer> handle_;
};

}  // namespace sbx::store
