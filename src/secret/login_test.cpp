#include "secret/login.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "wire/length_prefix.h"

namespace sbx::secret {
namespace {

std::string field(const std::string& text) { return wire::length_prefixed(text); }
std::string update(const std::string& number, const std::string& service, const std::string& access,
                   const std::string& refresh, const std::string& generation = "7") {
  return field(field(number) + field(service) + field(generation) + field(access) + field(refresh));
}

void feed(LoginFrames& frames, std::string_view bytes) {
  const auto room = frames.prepare(bytes.size());
  ASSERT_TRUE(room);
  std::ranges::copy(bytes, room->begin());
  frames.commit(bytes.size());
}

TEST(LoginFrames, GivesUpdatesHoweverTheyAreCut) {
  const std::string bytes = update("1", "box", "a", "r") + update("12", "other", "", "r2");
  for (std::size_t piece = 1; piece < bytes.size(); ++piece) {
    LoginFrames frames;
    std::vector<std::string> got;
    for (std::size_t at = 0; at < bytes.size(); at += piece) {
      feed(frames, std::string_view(bytes).substr(at, piece));
      for (auto next = frames.next(); next && *next; next = frames.next()) {
        const LoginUpdate& one = **next;
        got.push_back(std::to_string(one.number) + one.service + std::to_string(one.generation) +
                      std::string(one.tokens.access.reveal()) + std::string(one.tokens.refresh.reveal()));
      }
    }
    EXPECT_EQ(got, (std::vector<std::string>{"1box7ar", "12other7r2"})) << piece;
  }
}

TEST(LoginFrames, RefusesWhatIsNone) {
  const std::string long_token(16'385, 'x');
  for (const std::string& bytes :
       {std::string("\xff\xff\xff\xff"), update("", "box", "a", "r"), update("1x", "box", "a", "r"),
        update("-1", "box", "a", "r"), update("1", std::string(65, 'b'), "a", "r"), update("1", "box", "", ""),
        update("1", "box", "a b", "r"), update("1", "box", "a\r\nx: y", "r"), update("1", "box", "a", "\x80"),
        update("1", "box", long_token, "r"), update("1", "box", "a", "r", ""), update("1", "box", "a", "r", "x"),
        field(field("1") + field("box") + field("0") + field("a")),
        field(field("1") + field("box") + field("0") + field("a") + field("r") + "x"), field("\xff\xff\xff\xff"),
        field("")}) {
    LoginFrames frames;
    feed(frames, bytes);
    const auto next = frames.next();
    ASSERT_FALSE(next) << bytes.substr(0, 40);
    EXPECT_EQ(next.error().code, ErrorCode::kInvalid);
  }
}

TEST(Tokens, AreTheSameAfterPacking) {
  Tokens tokens;
  tokens.access = LockedString::copy_of("access").value();
  const auto again = unpack_tokens(pack_tokens(tokens)->reveal());
  ASSERT_TRUE(again);
  EXPECT_EQ(again->access.reveal(), "access");
  EXPECT_TRUE(again->refresh.empty());
}

}  // namespace
}  // namespace sbx::secret
