// What a sandbox's git may say to the host's: packets in pieces of any size. The first byte chooses the size.
#include <algorithm>
#include <cstdint>
#include <string_view>

#include "cli/pkt_lines.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const std::string_view bytes(reinterpret_cast<const char*>(data) + 1, size - 1);
  const auto pass = [&](std::size_t piece) {
    sbx::cli::PktLines lines;
    std::string passed;
    for (std::size_t at = 0; at < bytes.size(); at += piece) {
      const auto some = lines.feed(bytes.substr(at, piece));
      if (!some) return passed + "!";
      passed += *some;
    }
    return passed;
  };
  // The same whatever the pieces, but for how much came before an error; never more than what was said.
  const auto small = pass(data[0] + std::size_t{1});
  const auto whole = pass(std::max<std::size_t>(bytes.size(), 1));
  if (small.ends_with('!') != whole.ends_with('!') && small != whole) __builtin_trap();
  if (!whole.ends_with('!') && small != whole) __builtin_trap();
  if (small.size() > bytes.size() + 1) __builtin_trap();
  // Nothing that a terminal obeys before a pack has begun.
  const auto text = std::string_view(whole).substr(0, whole.find(std::string_view("\1PACK\0\0\0", 8)));
  if (text.find('\x1b') != text.npos || text.find("\xc2\x9b") != text.npos) __builtin_trap();
  return 0;
}
