#include "gateway/agent_message.h"

#include <openssl/sha.h>

#include <algorithm>

#include "gateway/base64.h"

namespace sbx::gateway {
namespace {

constexpr std::size_t kLength = 4;
// SSH_AGENT_RSA_SHA2_256 and SSH_AGENT_RSA_SHA2_512: all the flags that there are.
constexpr std::uint32_t kKnownFlags = 2U | 4U;
// A key takes its length, its comment's, and a byte at least; more than this no agent holds.
constexpr std::uint32_t kMostKeys = 4096;

// Reads from the front; after the first mistake everything fails.
class Reader {
 public:
  explicit Reader(std::string_view bytes) : bytes_(bytes) {}

  std::uint32_t number() {
    if (bytes_.size() < kLength) good_ = false;
    if (!good_) return 0;
    std::uint32_t value = 0;
    for (std::size_t i = 0; i < kLength; ++i) value = value << 8U | static_cast<unsigned char>(bytes_[i]);
    bytes_.remove_prefix(kLength);
    return value;
  }
  std::string_view string() {
    const auto size = number();
    if (size > bytes_.size()) good_ = false;
    if (!good_) return {};
    const auto text = bytes_.substr(0, size);
    bytes_.remove_prefix(size);
    return text;
  }
  bool good() const { return good_; }
  bool at_end() const { return good_ && bytes_.empty(); }

 private:
  std::string_view bytes_;
  bool good_ = true;
};

bool is(std::string_view message, AgentMessage type) {
  return !message.empty() && static_cast<unsigned char>(message.front()) == static_cast<unsigned char>(type);
}

}  // namespace

AgentRequest parse_agent_request(std::string_view message) {
  AgentRequest request;
  if (is(message, AgentMessage::kRequestIdentities)) {
    if (message.size() == 1) request.kind = AgentRequest::Kind::kIdentities;
    return request;
  }
  if (!is(message, AgentMessage::kSignRequest)) return request;
  Reader reader(message.substr(1));
  const auto key = reader.string();
  (void)reader.string();  // what is to be signed
  const auto flags = reader.number();
  if (!reader.at_end() || key.empty() || (flags & ~kKnownFlags) != 0) return request;
  request.kind = AgentRequest::Kind::kSign;
  request.key = key;
  return request;
}

Result<std::vector<AgentKey>> parse_identities_answer(std::string_view message) {
  if (!is(message, AgentMessage::kIdentitiesAnswer)) return fail(ErrorCode::kInvalid, "no list of keys");
  Reader reader(message.substr(1));
  const auto count = reader.number();
  if (count > kMostKeys) return fail(ErrorCode::kInvalid, "a list of too many keys");
  std::vector<AgentKey> keys;
  for (std::uint32_t i = 0; i < count && reader.good(); ++i) {
    const auto key = reader.string();
    const auto comment = reader.string();
    keys.push_back({key, comment});
  }
  if (!reader.at_end()) return fail(ErrorCode::kInvalid, "a malformed list of keys");
  return keys;
}

bool is_sign_response(std::string_view message) {
  if (!is(message, AgentMessage::kSignResponse)) return false;
  Reader reader(message.substr(1));
  (void)reader.string();
  return reader.at_end();
}

std::string agent_message(AgentMessage type) { return std::string(1, static_cast<char>(type)); }

std::string key_fingerprint(std::string_view key) {
  unsigned char digest[SHA256_DIGEST_LENGTH];
  ::SHA256(reinterpret_cast<const unsigned char*>(key.data()), key.size(), digest);
  auto text = base64_encode({reinterpret_cast<const char*>(digest), sizeof digest});
  text.erase(text.find_last_not_of('=') + 1);
  return "SHA256:" + text;
}

void AgentFrames::feed(std::string_view bytes) {
  held_.erase(0, begin_);
  begin_ = 0;
  held_ += bytes;
}

Result<std::optional<std::string>> AgentFrames::next() {
  const auto left = std::string_view(held_).substr(begin_);
  if (left.size() < kLength) return std::nullopt;
  const auto size = Reader(left).number();
  if (size == 0 || size > kLongestAgentMessage) {
    return fail(ErrorCode::kInvalid, "a message of " + std::to_string(size) + " bytes");
  }
  if (left.size() < kLength + size) return std::nullopt;
  begin_ += kLength + size;
  return std::string(left.substr(kLength, size));
}

}  // namespace sbx::gateway
