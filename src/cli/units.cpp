#include "cli/units.h"

#include <algorithm>
#include <cstdlib>
#include <map>
#include <set>
#include <sstream>

#include "base/file.h"

namespace sbx::cli {

Result<std::int64_t> parse_memory(std::string_view text) {
  const auto refuse = [&] {
    return fail(ErrorCode::kInvalid,
                "\"" + std::string(text) + "\" is not an amount of memory; write it like 512m or 8g");
  };
  std::size_t digits = 0;
  while (digits < text.size() && text[digits] >= '0' && text[digits] <= '9') ++digits;
  if (digits == 0 || digits > 15) return refuse();
  const std::int64_t number = std::strtoll(std::string(text.substr(0, digits)).c_str(), nullptr, 10);
  std::string unit(text.substr(digits));
  std::ranges::transform(unit, unit.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  static const std::map<std::string, std::int64_t> kUnits = {
      {"", 1},           {"b", 1},           {"k", 1LL << 10}, {"kb", 1LL << 10}, {"kib", 1LL << 10}, {"m", 1LL << 20},
      {"mb", 1LL << 20}, {"mib", 1LL << 20}, {"g", 1LL << 30}, {"gb", 1LL << 30}, {"gib", 1LL << 30}, {"t", 1LL << 40},
      {"tib", 1LL << 40}};
  const auto found = kUnits.find(unit);
  if (found == kUnits.end() || number > (1LL << 50) / found->second) return refuse();
  return number * found->second >> 20;
}

Result<std::vector<std::string>> read_environment(const std::vector<std::string>& files,
                                                  const std::vector<std::string>& values) {
  std::map<std::string, std::string> merged;
  const auto take = [&](const std::string& entry) -> Result<void> {
    const auto equals = entry.find('=');
    const std::string key = entry.substr(0, equals);
    if (key.empty() || key.find(' ') != std::string::npos)
      return fail(ErrorCode::kInvalid, "\"" + entry + "\" is not KEY=VALUE");
    if (equals != std::string::npos)
      merged[key] = entry.substr(equals + 1);
    else if (const char* value = std::getenv(key.c_str()); value != nullptr)
      merged[key] = value;
    return {};
  };
  for (const auto& file : files) {
    std::istringstream lines(SBX_TRY(read_file(file), "reading --env-file"));
    for (std::string line; std::getline(lines, line);) {
      if (!line.empty() && line.back() == '\r') line.pop_back();
      if (!line.empty() && line.front() != '#') SBX_CHECK(take(line), "reading " + file);
    }
  }
  for (const auto& value : values) SBX_CHECK(take(value), "reading --env");
  std::vector<std::string> environment;
  for (const auto& [key, value] : merged) environment.push_back(key + "=" + value);
  return environment;
}

std::pair<std::vector<std::string>, std::vector<std::string>> split_command(const std::vector<std::string>& argv) {
  static const std::set<std::string> kGlobal = {"--app-name", "--cloud-api-url"};
  static const std::set<std::string> kExec = {"-e",        "--env",      "--env-file", "-u",     "--user", "-w",
                                              "--workdir", "--app-name", "--wait",     "--logs", "--list"};
  std::size_t at = 1;
  for (; at < argv.size() && argv[at].starts_with('-'); ++at) {
    if (kGlobal.contains(argv[at])) ++at;
  }
  const std::string verb = at < argv.size() ? argv[at] : "";
  auto end = argv.end();
  auto begin_command = argv.end();
  if (verb == "exec") {
    bool has_sandbox = false;
    for (++at; at < argv.size(); ++at) {
      const std::string& word = argv[at];
      if (word == "--") {
        if (has_sandbox) {
          end = argv.begin() + static_cast<std::ptrdiff_t>(at);
          begin_command = end + 1;
          break;
        }
      } else if (word.starts_with("--")) {
        if (kExec.contains(word)) ++at;
        if (word.starts_with("--wait") || word.starts_with("--logs") || word.starts_with("--list")) return {argv, {}};
      } else if (word.size() > 1 && word.front() == '-') {
        // A cluster such as -itu root: the last letter may take the next word.
        const auto letter = word.find_first_of("euw", 1);
        if (letter != std::string::npos && letter + 1 == word.size()) ++at;
      } else if (!has_sandbox) {
        has_sandbox = true;
      } else {
        end = begin_command = argv.begin() + static_cast<std::ptrdiff_t>(at);
        break;
      }
    }
  } else if (verb == "run") {
    end = std::find(argv.begin(), argv.end(), "--");
    if (end != argv.end()) begin_command = end + 1;
  }
  return {{argv.begin(), end}, {begin_command, argv.end()}};
}

}  // namespace sbx::cli
