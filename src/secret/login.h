// The tokens of a login that was made inside a sandbox, as its gateway tells the daemon of them
// (docs/development/protocols.md, "Gateway socket": GET /logins), and as they are stored. What comes from a gateway is
// untrusted. Pure.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "base/locked_string.h"

namespace sbx::secret {

struct Tokens {
  LockedString access;
  LockedString refresh;  // either may be empty, not both
};

// The value of a stored login, and back: kInvalid if pack_tokens() could not have made it.
Result<LockedString> pack_tokens(const Tokens& tokens);
Result<Tokens> unpack_tokens(std::string_view bytes);

struct LoginUpdate {
  std::uint64_t number = 0;  // of the changes that this gateway has seen
  std::string service;
  std::uint64_t generation = 0;  // that the gateway was told for this service (login_generations.h)
  Tokens tokens;
};

// Cuts the stream of GET /logins into updates; in locked memory. Holds at most one update and what was fed last.
class LoginFrames {
 public:
  // Room to read into, and how much of it was used.
  Result<std::span<char>> prepare(std::size_t count) { return held_.prepare(count); }
  void commit(std::size_t used) { held_.commit(used); }
  // The next update; nullopt until it is whole. kInvalid: nothing after it means anything.
  Result<std::optional<LoginUpdate>> next();

 private:
  LockedString held_;
};

}  // namespace sbx::secret
