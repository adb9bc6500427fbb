// What goes to the terminal: tables, errors, JSON. Pure but for print_error.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/result.h"

namespace sbx::cli {

// Columns two spaces apart, the first row is the header; no trailing spaces.
std::string table(const std::vector<std::vector<std::string>>& rows);
// "ERROR: message" on stderr, or {"error":{"code","message"}} on stdout with `as_json`; returns `status`.
int print_error(const Error& error, bool as_json = false, int status = 1);
// "512m", "8g", "1024" (MiB without a unit) to MiB; kInvalid otherwise.
Result<std::int64_t> parse_memory(const std::string& text);
// Lines KEY=VALUE of a file; comments and empty lines are skipped, a bare KEY copies the host's value.
Result<std::vector<std::string>> read_env_file(const std::string& path);
// "KEY=VALUE" as it is, a bare "KEY" with the host's value (none: nothing).
void add_env(std::vector<std::string>& env, const std::string& entry);
// "72h", "1h30m", "45s" to milliseconds (Go's duration syntax, whole numbers and h, m, s, ms).
Result<std::int64_t> parse_duration_ms(const std::string& text);

}  // namespace sbx::cli
