#include "base/result.h"

#include <gtest/gtest.h>

#include <cerrno>

namespace sbx {
namespace {

Result<int> inner() { return fail(ErrorCode::kConflict, "the name is taken; choose another"); }
Result<int> outer() { return SBX_TRY(inner(), "creating the sandbox") + 1; }

TEST(Result, AnErrorKeepsItsCodeAndGainsContextOnTheWayOut) {
  auto result = outer();
  ASSERT_FALSE(result.has_value());
  EXPECT_EQ(result.error().code, ErrorCode::kConflict);
  EXPECT_EQ(result.error().describe(), "the name is taken; choose another (while creating the sandbox)");
}

TEST(Result, EveryCodeSurvivesItsWord) {
  for (auto code : {ErrorCode::kNotFound, ErrorCode::kConflict, ErrorCode::kDenied, ErrorCode::kInvalid,
                    ErrorCode::kUnavailable, ErrorCode::kTimeout, ErrorCode::kInternal}) {
    EXPECT_EQ(error_code_from(to_string(code)), code);
  }
  EXPECT_EQ(error_code_from("no such word"), ErrorCode::kInternal);
}

TEST(Result, AFailedSystemCallChoosesTheCode) {
  EXPECT_EQ(fail_errno("opening x", ENOENT).error().code, ErrorCode::kNotFound);
  EXPECT_EQ(fail_errno("opening x", EACCES).error().code, ErrorCode::kDenied);
  EXPECT_EQ(fail_errno("opening x", ENOSPC).error().code, ErrorCode::kUnavailable);
}

}  // namespace
}  // namespace sbx
