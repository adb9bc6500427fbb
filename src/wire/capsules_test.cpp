#include "wire/capsules.h"

#include <gtest/gtest.h>

#include <vector>

namespace sbx::wire {
namespace {

using Datagrams = std::vector<std::string>;

Datagrams read(std::string_view bytes, std::size_t piece) {
  Datagrams seen;
  DatagramReader reader([&](std::string_view payload) { seen.emplace_back(payload); });
  for (; !bytes.empty(); bytes.remove_prefix(std::min(piece, bytes.size()))) {
    EXPECT_TRUE(reader.feed(bytes.substr(0, piece)));
  }
  EXPECT_EQ(reader.held(), 0U);
  return seen;
}

TEST(Capsules, DatagramsOfEverySizeComeOutAsTheyWentInWhateverThePieces) {
  Datagrams sent = {"", "x"};
  for (const std::size_t size : {61, 62, 63, 64, 16'381, 16'382, 16'383, 16'384, 65'507, 65'527}) {
    sent.emplace_back(size, 'y');
  }
  std::string bytes;
  for (const auto& payload : sent) append_datagram(bytes, payload);
  for (const std::size_t piece : {std::size_t{1}, std::size_t{7}, std::size_t{4096}, bytes.size()}) {
    EXPECT_EQ(read(bytes, piece), sent) << piece;
  }
}

TEST(Capsules, UnknownTypesAndContextsAreSkipped) {
  using namespace std::string_view_literals;
  std::string bytes(
      "\x29\x05hello"                          // type 0x29
      "\x00\x02\x02z"                          // context 2
      "\x00\x00"                               // a datagram without a context
      "\x80\x00\x00\x00\x40\x03\x40\x00q"sv);  // type 0 and context 0, written at greater length
  append_datagram(bytes, "last");
  EXPECT_EQ(read(bytes, 1), (Datagrams{"q", "last"}));
  EXPECT_EQ(read(bytes, bytes.size()), (Datagrams{"q", "last"}));
}

TEST(Capsules, ADatagramThatIsTooLargeIsRefusedBeforeItIsHeld) {
  using namespace std::string_view_literals;
  DatagramReader reader([](std::string_view) { FAIL(); });
  EXPECT_FALSE(reader.feed("\x00\xff\xff\xff\xff\xff\xff\xff\xff"sv));
  EXPECT_FALSE(reader.feed("\x00\x01\x00"sv)) << "nothing is read after that";
  EXPECT_LE(reader.held(), 16U);
}

}  // namespace
}  // namespace sbx::wire
