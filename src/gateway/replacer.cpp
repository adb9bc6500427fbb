#include "gateway/replacer.h"

#include <algorithm>

#include "gateway/secret_value.h"

namespace sbx::gateway {

Replacer::~Replacer() { wipe(held_); }

void Replacer::add(std::string_view needle, std::string_view replacement) {
  if (!needle.empty()) rules_.push_back({needle, replacement});
}

bool Replacer::keeps_length() const {
  return std::ranges::all_of(rules_, [](const Rule& rule) { return rule.needle.size() == rule.replacement.size(); });
}

std::string Replacer::replace(std::string_view& text) const {
  std::string out;
  for (;;) {
    std::size_t first = std::string_view::npos;
    const Rule* best = nullptr;
    for (const auto& rule : rules_) {
      const auto found = text.find(rule.needle);
      if (found < first) {
        first = found;
        best = &rule;
      }
    }
    if (best == nullptr) return out;
    out.append(text.substr(0, first)).append(best->replacement);
    text.remove_prefix(first + best->needle.size());
  }
}

std::string Replacer::apply(std::string_view text) const {
  std::string out = replace(text);
  return out.append(text);
}

// The length of the longest end of `text` that begins a needle without being one.
std::size_t Replacer::possible_start(std::string_view text) const {
  std::size_t longest = 0;
  for (const auto& rule : rules_) {
    const std::size_t most = std::min(rule.needle.size() - 1, text.size());
    for (std::size_t n = most; n > longest; --n) {
      if (text.ends_with(rule.needle.substr(0, n))) {
        longest = n;
        break;
      }
    }
  }
  return longest;
}

std::string Replacer::feed(std::string_view piece) {
  if (rules_.empty()) return std::string(piece);
  held_.append(piece);
  std::string_view rest = held_;
  std::string out = replace(rest);
  const std::size_t keep = possible_start(rest);
  out.append(rest.substr(0, rest.size() - keep));
  std::string kept(rest.substr(rest.size() - keep));
  wipe(held_);
  held_ = std::move(kept);
  return out;
}

std::string Replacer::finish() {
  std::string out = std::move(held_);
  held_.clear();
  return out;
}

}  // namespace sbx::gateway
