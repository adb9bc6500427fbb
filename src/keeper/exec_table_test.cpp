#include "keeper/exec_table.h"

#include <gtest/gtest.h>

namespace sbx::keeper {
namespace {

TEST(OutputRing, TheLastMebibyteIsKeptInWholeFrames) {
  OutputRing ring;
  const std::string piece(100U << 10U, 'x');
  for (int i = 0; i < 50; ++i) ring.push(wire::stdcopy_frame(wire::StdStream::kStdout, piece));
  EXPECT_EQ(ring.next(), 50U);
  EXPECT_EQ(ring.next() - ring.first(), kRingBytes / (piece.size() + 8));
  EXPECT_EQ(ring.at(ring.first()).size(), piece.size() + 8);
}

TEST(OutputRing, AFrameLargerThanTheRingIsStillKept) {
  OutputRing ring;
  ring.push(std::string(2 * kRingBytes, 'x'));
  EXPECT_EQ(ring.next() - ring.first(), 1U);
}

TEST(Rfc3339, IsUtc) { EXPECT_EQ(rfc3339(std::chrono::system_clock::time_point{}), "1970-01-01T00:00:00Z"); }

}  // namespace
}  // namespace sbx::keeper
