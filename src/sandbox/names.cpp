#include "sandbox/names.h"

#include <algorithm>
#include <filesystem>

namespace sbx::sandbox {
namespace {

bool is_word(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9'); }

constexpr std::size_t kLongest = 63;

}  // namespace

Result<void> check_name(std::string_view name) {
  const auto refuse = [&](std::string_view why) {
    return fail(ErrorCode::kInvalid, "invalid sandbox name \"" + std::string(name) + "\": " + std::string(why));
  };
  if (name.size() < 2) return refuse("it needs at least 2 characters");
  if (name.size() > kLongest) return refuse("it may have at most 63 characters");
  if (!std::ranges::all_of(name, [](char c) { return is_word(c) || c == '-' || c == '.'; })) {
    return refuse("only letters, digits, '-' and '.' are allowed");
  }
  if (!is_word(name.front()) || !is_word(name.back())) return refuse("it must begin and end with a letter or digit");
  if (name == "default") return refuse("\"default\" is reserved");
  return {};
}

std::string derive_name(std::string_view agent, std::string_view workspace) {
  const std::string folder = std::filesystem::path(workspace).lexically_normal().filename().string();
  std::string name;
  for (const char c : std::string(agent) + "-" + folder) {
    const char next = is_word(c) || c == '.' ? c : '-';
    if (next == '-' && name.ends_with('-')) continue;
    name += next;
  }
  if (name.size() > kLongest) name.resize(kLongest);
  while (!name.empty() && !is_word(name.back())) name.pop_back();
  return name;
}

}  // namespace sbx::sandbox
