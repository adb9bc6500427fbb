// Datagrams on a stream (RFC 9297, "HTTP Datagrams and the Capsule Protocol"), as CONNECT-UDP carries them (RFC 9298):
// a capsule is a type and a length, both variable-length integers (RFC 9000 section 16), and that many bytes; one of
// type 0 holds a context id, here always 0, and the payload of one UDP packet. Unknown types and contexts are skipped.
// Thread safety: none.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "base/result.h"

namespace sbx::wire {

inline constexpr std::size_t kLargestDatagram = 65'527;  // RFC 9298 section 5

// Appends one capsule. `payload` is at most kLargestDatagram bytes.
void append_datagram(std::string& capsules, std::string_view payload);

// Finds the datagrams in a stream that comes in pieces of any size. Holds at most one datagram.
class DatagramReader {
 public:
  using Sink = std::function<void(std::string_view payload)>;
  explicit DatagramReader(Sink sink) : sink_(std::move(sink)) {}
  // kInvalid for a datagram that is too large; nothing is read after that.
  Result<void> feed(std::string_view bytes);
  std::size_t held() const { return held_.size(); }

 private:
  void take(std::string_view datagram);
  Sink sink_;
  std::string held_;        // a head that is not complete, then what there is of a datagram
  std::size_t wanted_ = 0;  // length of the datagram in held_; 0: a head comes next
  std::uint64_t skip_ = 0;  // bytes left of a capsule that is not ours
  bool broken_ = false;
};

}  // namespace sbx::wire
