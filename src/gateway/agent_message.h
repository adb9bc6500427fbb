// Messages of the SSH agent protocol (draft-miller-ssh-agent): the two requests that a sandbox may make of the host's
// agent, and what is read of the answers. Pure; views point into what was read.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace sbx::gateway {

// "Message numbers" of the draft.
enum class AgentMessage : std::uint8_t {
  kFailure = 5,
  kRequestIdentities = 11,
  kIdentitiesAnswer = 12,
  kSignRequest = 13,
  kSignResponse = 14,
};

// As OpenSSH has it.
inline constexpr std::size_t kLongestAgentMessage = 256U << 10U;

struct AgentRequest {
  enum class Kind { kIdentities, kSign, kRefused };
  Kind kind = Kind::kRefused;
  std::string_view key = {};  // kSign: the public key
};
// `message` is at least one byte. Whatever is not exactly one of the two, to the last byte, is kRefused.
AgentRequest parse_agent_request(std::string_view message);

struct AgentKey {
  std::string_view key;
  std::string_view comment;
};
// An IDENTITIES_ANSWER; kInvalid for anything else.
Result<std::vector<AgentKey>> parse_identities_answer(std::string_view message);
bool is_sign_response(std::string_view message);

// A message of its type alone.
std::string agent_message(AgentMessage type);
// "SHA256:...", as ssh-keygen -l shows it.
std::string key_fingerprint(std::string_view key);

// Cuts a stream of bytes into messages: each has its length, four bytes, before it. Holds at most one message and what
// was fed last.
class AgentFrames {
 public:
  void feed(std::string_view bytes);
  // The next message (at least one byte), without its length; nullopt until it is whole. kInvalid for a length of 0 or
  // above kLongestAgentMessage: nothing after it means anything.
  Result<std::optional<std::string>> next();

 private:
  std::string held_;
  std::size_t begin_ = 0;  // of what next() has not returned
};

}  // namespace sbx::gateway
