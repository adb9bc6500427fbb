#include "cli/output.h"

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <iostream>
#include <sstream>

#include "base/file.h"

namespace sbx::cli {

std::string table(const std::vector<std::vector<std::string>>& rows) {
  std::vector<std::size_t> widths;
  for (const auto& row : rows) {
    widths.resize(std::max(widths.size(), row.size()));
    for (std::size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  }
  std::string text;
  for (const auto& row : rows) {
    std::string line;
    for (std::size_t i = 0; i < row.size(); ++i) line += row[i] + std::string(widths[i] - row[i].size() + 3, ' ');
    line.erase(line.find_last_not_of(' ') + 1);
    text += line + "\n";
  }
  return text;
}

int print_error(const Error& error, bool as_json, int status) {
  if (as_json) {
    nlohmann::json document;
    document["error"] = {{"code", to_string(error.code)}, {"message", error.message}};
    std::cout << document.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) << "\n";
  }
  std::cerr << "ERROR: " << error.message << "\n";
  return status;
}

Result<std::int64_t> parse_memory(const std::string& text) {
  std::int64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  std::string unit(end, text.data() + text.size());
  std::transform(unit.begin(), unit.end(), unit.begin(), [](unsigned char c) { return std::tolower(c); });
  if (unit.size() > 1 && (unit.ends_with("ib") || unit.ends_with("b"))) unit.resize(1);
  if (error == std::errc{} && number > 0 && number < (1LL << 30)) {
    if (unit.empty() || unit == "m") return number;
    if (unit == "g") return number * 1024;
    if (unit == "k") return number / 1024;
    if (unit == "b") return number >> 20;
  }
  return fail(ErrorCode::kInvalid, "\"" + text + "\" is not a size of memory; write 512m or 8g");
}

void add_env(std::vector<std::string>& env, const std::string& entry) {
  if (entry.find('=') != std::string::npos) {
    env.push_back(entry);
  } else if (const char* value = std::getenv(entry.c_str())) {
    env.push_back(entry + "=" + value);
  }
}

Result<std::vector<std::string>> read_env_file(const std::string& path) {
  std::istringstream lines(SBX_TRY(read_file(path, 1U << 20U), "reading " + path));
  std::vector<std::string> env;
  for (std::string line; std::getline(lines, line);) {
    if (!line.empty() && line.back() == '\r') line.pop_back();
    const auto start = line.find_first_not_of(" \t");
    if (start == std::string::npos || line[start] == '#') continue;
    add_env(env, line.substr(start));
  }
  return env;
}

Result<std::int64_t> parse_duration_ms(const std::string& text) {
  const auto malformed = [&] {
    return fail(ErrorCode::kInvalid, "\"" + text + "\" is not a duration; write 168h, 1h30m or 45s");
  };
  std::int64_t total = 0;
  std::string_view rest = text;
  while (!rest.empty()) {
    std::int64_t number = 0;
    const auto [end, error] = std::from_chars(rest.data(), rest.data() + rest.size(), number);
    if (error != std::errc{} || number < 0 || number > 1'000'000'000) return malformed();
    rest.remove_prefix(static_cast<std::size_t>(end - rest.data()));
    if (rest.starts_with("ms")) {
      total += number;
      rest.remove_prefix(2);
      continue;
    }
    if (rest.empty()) return malformed();
    const char unit = rest.front();
    if (unit != 'h' && unit != 'm' && unit != 's') return malformed();
    total += number * (unit == 'h' ? 3'600'000 : unit == 'm' ? 60'000 : 1'000);
    rest.remove_prefix(1);
  }
  if (text.empty()) return malformed();
  return total;
}

}  // namespace sbx::cli
