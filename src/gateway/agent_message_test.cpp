#include "gateway/agent_message.h"

#include <gtest/gtest.h>

namespace sbx::gateway {
namespace {

std::string number(std::uint32_t value) {
  std::string text;
  for (int shift = 24; shift >= 0; shift -= 8) text.push_back(static_cast<char>(value >> static_cast<unsigned>(shift)));
  return text;
}
std::string field(const std::string& text) { return number(static_cast<std::uint32_t>(text.size())) + text; }
std::string sign(const std::string& key, const std::string& data, std::uint32_t flags) {
  return agent_message(AgentMessage::kSignRequest) + field(key) + field(data) + number(flags);
}
AgentRequest::Kind kind(const std::string& message) { return parse_agent_request(message).kind; }

using enum AgentRequest::Kind;

TEST(AgentMessage, ListingKeysAndSigningAreLetThrough) {
  EXPECT_EQ(kind("\x0b"), kIdentities);
  for (const std::uint32_t flags : {0U, 2U, 4U, 6U}) {
    const std::string message = sign("key", "", flags);
    EXPECT_EQ(kind(message), kSign) << flags;
    EXPECT_EQ(parse_agent_request(message).key, "key");
  }
}

TEST(AgentMessage, NothingElseIs) {
  for (int type = 0; type < 256; ++type) {
    if (type == 11 || type == 13) continue;
    for (const std::string& rest : {std::string(), field("key") + field("data") + number(0)})
      EXPECT_EQ(kind(std::string(1, static_cast<char>(type)) + rest), kRefused) << type;
  }
}

TEST(AgentMessage, LengthsThatLieAreRefused) {
  const std::string good = sign("key", "data", 0);
  for (std::size_t size = 1; size < good.size(); ++size) EXPECT_EQ(kind(good.substr(0, size)), kRefused) << size;
  EXPECT_EQ(kind(good + '\0'), kRefused);
  EXPECT_EQ(kind("\x0b\x0b"), kRefused);
  EXPECT_EQ(kind(sign("", "data", 0)), kRefused) << "no key";
  for (const std::uint32_t flags : {1U, 8U, 0x80000000U, 0xffffffffU})
    EXPECT_EQ(kind(sign("key", "data", flags)), kRefused) << flags;
  for (const std::uint32_t lie : {0xffffffffU, 0x7fffffffU, 0x80000000U, 14U})
    EXPECT_EQ(kind("\x0d" + number(lie) + "key" + field("data") + number(0)), kRefused) << lie;
}

TEST(AgentMessage, StreamsAreCutIntoMessages) {
  AgentFrames frames;
  const std::string bytes = field("\x0b") + field(sign("key", "data", 0)) + number(3) + "ab";
  std::vector<std::string> messages;
  for (const char byte : bytes) {
    frames.feed({&byte, 1});
    const auto next = frames.next();
    ASSERT_TRUE(next);
    if (*next) messages.push_back(**next);
  }
  EXPECT_EQ(messages, (std::vector<std::string>{"\x0b", sign("key", "data", 0)}));
  frames.feed("c");
  EXPECT_EQ(frames.next().value(), "abc");
  for (const std::uint32_t size : {0U, static_cast<std::uint32_t>(kLongestAgentMessage) + 1, 0xffffffffU}) {
    AgentFrames bad;
    bad.feed(number(size) + "x");
    EXPECT_FALSE(bad.next()) << size;
  }
}

TEST(AgentMessage, AnswersAreReadStrictly) {
  const std::string answer = agent_message(AgentMessage::kIdentitiesAnswer) + number(2) + field("k1") +
                             field("me@host") + field("k2") + field("");
  const auto keys = parse_identities_answer(answer);
  ASSERT_TRUE(keys);
  ASSERT_EQ(keys->size(), 2U);
  EXPECT_EQ((*keys)[0].comment, "me@host");
  EXPECT_EQ((*keys)[1].key, "k2");
  for (std::size_t size = 0; size < answer.size(); ++size)
    EXPECT_FALSE(parse_identities_answer(answer.substr(0, size)));
  EXPECT_FALSE(parse_identities_answer(answer + "x"));
  EXPECT_FALSE(parse_identities_answer(agent_message(AgentMessage::kIdentitiesAnswer) + number(0xffffffff)));
  EXPECT_TRUE(is_sign_response("\x0e" + field("signature")));
  EXPECT_FALSE(is_sign_response("\x0e" + field("signature") + "x"));
  EXPECT_FALSE(is_sign_response("\x05"));
}

// An Ed25519 key of zeros, and what ssh-keygen -l says of it.
TEST(AgentMessage, FingerprintsAreThoseThatSshShows) {
  const std::string key = field("ssh-ed25519") + field(std::string(32, '\0'));
  EXPECT_EQ(key_fingerprint(key), "SHA256:kmYcvdi2GkPeWxB6XLjrZB8JHsy2Hm8luHMFp9GMvqk");
}

}  // namespace
}  // namespace sbx::gateway
