// PortFilter: what arrives on a port that carries HTTP/2, split into sessions (docs/development/protocols.md,
// Resynchronisation).
//
// Before a SYN everything is dropped. After it, SYNs of the same nonce that come before the first byte of HTTP/2 are
// dropped, and what follows is passed on. A SYN with another nonce starts the next session; it is believed at an HTTP/2
// frame boundary (where its first byte would be the length of a frame far over every limit), and elsewhere only if it
// comes twice in a row: payload may hold the magic (this very program does), and a session may break off in the middle
// of a frame. Pure; thread safety: none.
#pragma once

#include <array>
#include <optional>
#include <string>
#include <string_view>

namespace sbx::guest {

inline constexpr std::size_t kSynSize = 24;
using Nonce = std::array<char, 16>;

// Finds one SYN in a stream given byte by byte.
class SynMatcher {
 public:
  // Takes a byte. Returns the nonce when it completes a SYN. `rejected` receives the bytes that turned out to belong to
  // none (appended).
  std::optional<Nonce> push(char byte, std::string& rejected);
  bool idle() const { return held_.empty(); }
  void reset() { held_.clear(); }

 private:
  std::string held_;
};

// What the host is on a port: a client begins its session with a preface (RFC 9113, 3.4), a server with a frame.
enum class PortPeer { kClient, kServer };

class PortFilter {
 public:
  explicit PortFilter(PortPeer peer = PortPeer::kClient) : peer_(peer) {}
  // Consumes from `input`; appends to `clean` what the current session is to read. Returns early, with the nonce, where
  // a new session begins.
  std::optional<Nonce> feed(std::string_view& input, std::string& clean);
  // As if a SYN with this nonce had just been fed.
  void begin(const Nonce& nonce);
  // The session is over: drop everything until the next SYN.
  void reset();

 private:
  enum class State { kScanning, kLeading, kFrames };
  void pass(std::string_view bytes, std::string& clean);
  std::optional<Nonce> watch_payload(char byte);

  PortPeer peer_;
  State state_ = State::kScanning;
  Nonce nonce_{};
  SynMatcher matcher_;
  std::string rejected_;
  // Frame tracking: bytes of the current frame (or of the preface) still to come, and the header being read.
  std::size_t remaining_ = 0;
  std::string header_;
  // The second rule: a SYN inside payload, and the one that must follow at once.
  SynMatcher shadow_;
  std::optional<Nonce> seen_once_;
};

}  // namespace sbx::guest
