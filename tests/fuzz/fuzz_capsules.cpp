// What a guest may answer on the stream of a UDP client: capsules in pieces of any size. The first byte chooses the
// size.
#include <cstdint>
#include <string_view>

#include "wire/capsules.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  std::string_view bytes(reinterpret_cast<const char*>(data) + 1, size - 1);
  const std::size_t piece = data[0] + std::size_t{1};
  std::string again;
  std::size_t payload = 0;
  sbx::wire::DatagramReader reader([&](std::string_view datagram) {
    if (datagram.size() > sbx::wire::kLargestDatagram) __builtin_trap();
    payload += datagram.size();
    sbx::wire::append_datagram(again, datagram);
  });
  for (; !bytes.empty(); bytes.remove_prefix(std::min(piece, bytes.size()))) {
    const bool good = reader.feed(bytes.substr(0, piece)).has_value();
    if (reader.held() > sbx::wire::kLargestDatagram + 1) __builtin_trap();
    if (!good) break;
  }
  // What was found can be written and found again.
  sbx::wire::DatagramReader second([&](std::string_view datagram) { payload -= datagram.size(); });
  if (payload > size || !second.feed(again) || payload != 0) __builtin_trap();
  return 0;
}
