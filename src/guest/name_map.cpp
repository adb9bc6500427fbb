#include "guest/name_map.h"

namespace sbx::guest {

NameMap::NameMap() {
  (void)address_for("gateway.docker.internal");
  (void)address_for("host.docker.internal");
}

std::optional<std::uint32_t> NameMap::known_address(std::string_view name) const {
  const auto found = addresses_.find(std::string(name));
  if (found == addresses_.end()) return std::nullopt;
  return found->second;
}

std::optional<std::uint32_t> NameMap::address_for(std::string_view name) {
  if (const auto known = known_address(name)) return known;
  const std::uint32_t address = kFirst + static_cast<std::uint32_t>(names_.size());
  if (address - kNetwork >= kSize - 1) return std::nullopt;  // the last one is the network's broadcast address
  const auto [place, inserted] = addresses_.emplace(std::string(name), address);
  names_.push_back(&place->first);
  return address;
}

std::optional<std::string> NameMap::name_of(std::uint32_t address) const {
  if (address < kFirst || address - kFirst >= names_.size()) return std::nullopt;
  return *names_[address - kFirst];
}

}  // namespace sbx::guest
