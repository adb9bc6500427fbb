#include "policy/glob.h"

namespace sbx::policy {
namespace {

// The class that begins at glob[0] == '[': its length with both brackets, 0 if it is not one.
std::size_t class_length(std::string_view glob) {
  std::size_t at = 1;
  if (at < glob.size() && glob[at] == '!') ++at;
  const std::size_t first = at;
  for (; at < glob.size() && glob[at] != ']'; ++at) {
    if (glob[at] == '[' || glob[at] == '!' || glob[at] == '^' || glob[at] == '*' || glob[at] == '?') return 0;
    if (at + 2 < glob.size() && glob[at + 1] == '-' && glob[at + 2] != ']' && glob[at + 2] < glob[at]) return 0;
  }
  return at < glob.size() && at > first ? at + 1 : 0;
}

bool class_matches(std::string_view members, char c) {
  members = members.substr(1, members.size() - 2);
  const bool negated = members.starts_with('!');
  if (negated) members.remove_prefix(1);
  bool found = false;
  for (std::size_t i = 0; i < members.size() && !found; ++i) {
    if (i + 2 < members.size() && members[i + 1] == '-') {
      found = members[i] <= c && c <= members[i + 2];
      i += 2;
    } else {
      found = members[i] == c;
    }
  }
  return found != negated;
}

}  // namespace

bool has_wildcards(std::string_view glob) { return glob.find_first_of("*?[") != std::string_view::npos; }

bool is_valid_glob(std::string_view glob) {
  for (std::size_t at = 0; at < glob.size(); ++at) {
    if (glob[at] == ']') return false;
    if (glob[at] != '[') continue;
    const std::size_t length = class_length(glob.substr(at));
    if (length == 0) return false;
    at += length - 1;
  }
  return true;
}

// Greedy, going back to the last star only: a star that matched too little is the only choice there is to revise.
bool glob_matches(std::string_view glob, std::string_view text) {
  std::size_t g = 0;
  std::size_t t = 0;
  std::size_t star = std::string_view::npos;
  std::size_t star_text = 0;
  while (t < text.size()) {
    if (g < glob.size() && glob[g] == '*') {
      star = g++;
      star_text = t;
      continue;
    }
    bool one = false;
    std::size_t width = 1;
    if (g < glob.size()) {
      if (glob[g] == '[') {
        width = class_length(glob.substr(g));
        one = width != 0 && class_matches(glob.substr(g, width), text[t]);
      } else {
        one = glob[g] == '?' || glob[g] == text[t];
      }
    }
    if (one) {
      g += width;
      ++t;
    } else if (star != std::string_view::npos) {
      g = star + 1;
      t = ++star_text;
    } else {
      return false;
    }
  }
  while (g < glob.size() && glob[g] == '*') ++g;
  return g == glob.size();
}

}  // namespace sbx::policy
