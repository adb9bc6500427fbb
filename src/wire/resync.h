// Resynchronisation of a virtio port after a (re)connection (docs/development/protocols.md, "Resynchronisation").
// Host: resync_as_host() sends kResyncMagic and a fresh 16-byte nonce, then discards input until the echo
// (kResyncEchoMagic and the nonce). Guest: ResyncScanner finds magic and nonce in whatever arrives first.
// Thread safety: none.
#pragma once

#include <array>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <chrono>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"

namespace sbx::wire {

inline constexpr std::string_view kResyncMagic{"\xf5SBXSYN1", 8};
inline constexpr std::string_view kResyncEchoMagic{"\xf5SBXACK1", 8};
inline constexpr std::size_t kNonceSize = 16;
// What an old session may have left in flight: 1.28 MB was measured; a peer that sends more without an echo is refused.
inline constexpr std::size_t kMaxDiscard = 16U << 20U;

// Finds `magic` and the 16 bytes after it in a stream given in pieces of any size. Holds at most 24 bytes.
class ResyncScanner {
 public:
  explicit ResyncScanner(std::string_view magic) : magic_(magic) {}
  // Consumes from `input` up to and including the nonce; nullopt means that all of it was consumed without a match.
  std::optional<std::array<char, kNonceSize>> feed(std::string_view& input);
  // How many more bytes can be read without reading past a nonce.
  std::size_t needed() const { return magic_.size() + kNonceSize - window_.size(); }

 private:
  std::string magic_;
  std::string window_;
};

// Sends the magic again every 250 ms while nothing answers (the guest may not have opened its end yet), until
// `deadline`. kTimeout then; kUnavailable when the transport ends; kInvalid past kMaxDiscard. No byte after the echo is
// consumed.
boost::asio::awaitable<Result<void>> resync_as_host(boost::asio::posix::stream_descriptor& port,
                                                    std::chrono::milliseconds deadline);
// Waits (for ever) for the magic, echoes the nonce. No byte after the nonce is consumed. kUnavailable at end of file.
boost::asio::awaitable<Result<void>> resync_as_guest(boost::asio::posix::stream_descriptor& port);

}  // namespace sbx::wire
