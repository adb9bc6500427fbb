#include "wire/stdcopy.h"

#include <gtest/gtest.h>

namespace sbx::wire {
namespace {

TEST(Stdcopy, FramesSurviveAnyCutting) {
  const std::string stream = stdcopy_frame(StdStream::kStdout, std::string("a\0b", 3)) +
                             stdcopy_frame(StdStream::kStderr, "") + stdcopy_frame(StdStream::kStderr, "oops") +
                             stdcopy_frame(StdStream::kStatus, "{\"exit_code\":3}");
  for (std::size_t cut = 1; cut <= stream.size(); ++cut) {
    std::string out;
    std::string err;
    std::string status;
    StdcopyReader reader([&](StdStream kind, std::string_view piece) {
      (kind == StdStream::kStdout ? out : kind == StdStream::kStderr ? err : status).append(piece);
    });
    for (std::size_t at = 0; at < stream.size(); at += cut) ASSERT_TRUE(reader.feed(stream.substr(at, cut)));
    EXPECT_EQ(out, std::string("a\0b", 3));
    EXPECT_EQ(err, "oops");
    EXPECT_EQ(status, "{\"exit_code\":3}");
  }
}

TEST(Stdcopy, MalformedHeadersAreRefused) {
  for (const std::string& header : {std::string("\x04\0\0\0\0\0\0\1", 8), std::string("\1\1\0\0\0\0\0\1", 8),
                                    std::string("\1\0\0\0\xff\0\0\0", 8)}) {
    StdcopyReader reader([](StdStream, std::string_view) { FAIL(); });
    EXPECT_EQ(reader.feed(header).error().code, ErrorCode::kInvalid);
  }
}

}  // namespace
}  // namespace sbx::wire
