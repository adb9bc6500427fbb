#include "secret/mask.h"

#include <algorithm>

namespace sbx::secret {
namespace {

constexpr std::size_t kShown = 6;
constexpr std::size_t kTail = 4;
constexpr std::size_t kLongest = 25;

std::string stars(std::size_t count) { return std::string(count, '*'); }

}  // namespace

std::string mask(const LockedString& value) {
  const auto text = value.reveal();
  if (text.size() <= kShown) return stars(text.size());
  const std::string head(text.substr(0, kShown));
  if (text.size() < 20) return head + stars(text.size() - kShown);
  const std::string tail(text.substr(text.size() - kTail));
  const std::size_t hidden = text.size() - kShown - kTail;
  if (text.size() <= kLongest) return head + stars(hidden) + tail;
  return head + stars(6) + "..." + stars(6) + tail;
}

std::string mask_password(const LockedString& value) {
  return value.size() < 12 ? stars(std::min<std::size_t>(value.size(), 8)) : mask(value);
}

}  // namespace sbx::secret
