// NameMap: the addresses that the guest's resolver hands out, one for each name that was asked for, and never to
// another name while the guest lives; so a connection's destination tells the name it was made to. Addresses are of
// 198.18.0.0/15 (RFC 2544), which is nobody's on the internet. Host byte order. Thread safety: none.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace sbx::guest {

class NameMap {
 public:
  static constexpr std::uint32_t kNetwork = 198U << 24U | 18U << 16U;
  static constexpr std::uint32_t kSize = 1U << 17U;
  static constexpr std::uint32_t kOwnAddress = kNetwork + 1;  // the resolver's: that of sbx0

  // With the names that always exist: gateway.docker.internal and host.docker.internal.
  NameMap();
  static bool covers(std::uint32_t address) { return address >= kNetwork && address - kNetwork < kSize; }

  // The address of `name` (lower case, no last dot); hands one out if it has none. nullopt when all are gone.
  std::optional<std::uint32_t> address_for(std::string_view name);
  std::optional<std::uint32_t> known_address(std::string_view name) const;
  std::optional<std::string> name_of(std::uint32_t address) const;

 private:
  static constexpr std::uint32_t kFirst = kOwnAddress + 1;
  std::vector<const std::string*> names_;  // index 0 is kFirst; point at the keys below
  std::unordered_map<std::string, std::uint32_t> addresses_;
};

}  // namespace sbx::guest
