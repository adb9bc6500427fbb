// The head of POST /exec: four bytes of length, big endian, and that much text (docs/development/protocols.md).
#pragma once

#include <cstdint>
#include <string>

namespace sbx::wire {

inline std::string length_prefixed(const std::string& text) {
  const auto size = static_cast<std::uint32_t>(text.size());
  std::string bytes;
  for (int shift = 24; shift >= 0; shift -= 8) bytes += static_cast<char>(size >> static_cast<unsigned>(shift));
  return bytes + text;
}

}  // namespace sbx::wire
