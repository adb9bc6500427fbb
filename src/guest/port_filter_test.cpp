#include "guest/port_filter.h"

#include <gtest/gtest.h>

#include "wire/resync.h"

namespace sbx::guest {
namespace {

constexpr std::string_view kPreface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

std::string syn(char fill) { return std::string(wire::kResyncMagic) + std::string(16, fill); }
std::string frame(std::string_view payload) {
  std::string header(9, '\0');
  header[1] = static_cast<char>(payload.size() >> 8U);
  header[2] = static_cast<char>(payload.size());
  return header + std::string(payload);
}

struct Outcome {
  std::string clean;
  std::string nonces;  // the first byte of each
};

// In pieces of `size`, as a port may deliver.
Outcome filter(std::string_view input, std::size_t size) {
  PortFilter filter;
  Outcome outcome;
  while (!input.empty()) {
    auto piece = input.substr(0, size);
    input.remove_prefix(piece.size());
    while (!piece.empty()) {
      if (const auto nonce = filter.feed(piece, outcome.clean)) outcome.nonces += nonce->front();
    }
  }
  return outcome;
}

class PortFilterTest : public testing::TestWithParam<std::size_t> {};
INSTANTIATE_TEST_SUITE_P(Pieces, PortFilterTest, testing::Values(1, 2, 7, 24, 33, 4096));

TEST_P(PortFilterTest, DropsGarbageBeforeASynAndDuplicatesAfterIt) {
  const std::string session = std::string(kPreface) + frame("hello") + frame("");
  const auto outcome = filter("left\xf5SBover" + syn('a') + syn('a') + syn('a') + session, GetParam());
  EXPECT_EQ(outcome.nonces, "a");
  EXPECT_EQ(outcome.clean, session);
}

TEST_P(PortFilterTest, ASynBetweenFramesBeginsTheNextSession) {
  const std::string session = std::string(kPreface) + frame("one");
  const auto outcome = filter(syn('a') + session + syn('b') + syn('b') + session, GetParam());
  EXPECT_EQ(outcome.nonces, "ab");
  EXPECT_EQ(outcome.clean, session + session);
}

TEST_P(PortFilterTest, PayloadMayHoldTheMagic) {
  const std::string session =
      std::string(kPreface) + frame("x" + syn('q') + "y" + syn('q')) + frame("\xf5") + frame("end");
  const auto outcome = filter(syn('a') + session, GetParam());
  EXPECT_EQ(outcome.nonces, "a");
  EXPECT_EQ(outcome.clean, session);
}

TEST_P(PortFilterTest, ASessionCutOffInAFrameIsLeftByTheSecondSyn) {
  std::string cut = std::string(kPreface) + frame(std::string(5000, 'z')).substr(0, 300);
  const auto outcome = filter(syn('a') + cut + syn('b') + syn('b') + syn('b') + std::string(kPreface), GetParam());
  EXPECT_EQ(outcome.nonces, "ab");
  EXPECT_TRUE(outcome.clean.ends_with(kPreface));
}

TEST(PortFilterTest, AServersSessionBeginsWithAFrame) {
  const std::string session = frame("") + frame("settings") + frame("\xf5SB");
  const std::string input = syn('a') + syn('a') + session + syn('b') + session;
  for (const std::size_t size : {1U, 7U, 4096U}) {
    PortFilter filter(PortPeer::kServer);
    std::string clean;
    std::string nonces;
    for (std::string_view rest = input; !rest.empty();) {
      auto piece = rest.substr(0, size);
      rest.remove_prefix(piece.size());
      while (!piece.empty()) {
        if (const auto nonce = filter.feed(piece, clean)) nonces += nonce->front();
      }
    }
    EXPECT_EQ(nonces, "ab") << size;
    EXPECT_EQ(clean, session + session) << size;
  }
}

TEST(PortFilterTest, AResetWaitsForTheNextSyn) {
  PortFilter filter;
  std::string clean;
  const std::string first = syn('a') + std::string(kPreface);
  std::string_view input = first;
  ASSERT_TRUE(filter.feed(input, clean));
  filter.reset();
  EXPECT_FALSE(filter.feed(input, clean));
  EXPECT_EQ(clean, "");
}

}  // namespace
}  // namespace sbx::guest
