#include "cli/output.h"

#include <gtest/gtest.h>

namespace sbx::cli {
namespace {

TEST(Output, ColumnsLineUpAndLinesHaveNoTrailingSpaces) {
  EXPECT_EQ(table({{"SANDBOX", "AGENT", "PORTS"}, {"a", "shell", ""}}), "SANDBOX   AGENT   PORTS\na         shell\n");
}

TEST(Output, MemoryTakesBinaryUnits) {
  EXPECT_EQ(parse_memory("512m").value(), 512);
  EXPECT_EQ(parse_memory("8g").value(), 8192);
  EXPECT_EQ(parse_memory("2GiB").value(), 2048);
  EXPECT_EQ(parse_memory("1024").value(), 1024);
  for (const char* bad : {"", "g", "-1g", "8x", "1.5g", "99999999999999999999"}) EXPECT_FALSE(parse_memory(bad)) << bad;
}

TEST(Output, DurationsAreGos) {
  EXPECT_EQ(parse_duration_ms("168h").value(), 604'800'000);
  EXPECT_EQ(parse_duration_ms("1h30m5s").value(), 5'405'000);
  EXPECT_EQ(parse_duration_ms("20ms").value(), 20);
  for (const char* bad : {"", "5", "h", "-1h", "1d"}) EXPECT_FALSE(parse_duration_ms(bad)) << bad;
}

TEST(Output, ABareVariableCopiesTheHosts) {
  ::setenv("SBX_OUTPUT_TEST", "value", 1);
  ::unsetenv("SBX_OUTPUT_TEST_NOT_SET");
  std::vector<std::string> env;
  add_env(env, "A=b=c");
  add_env(env, "SBX_OUTPUT_TEST");
  add_env(env, "SBX_OUTPUT_TEST_NOT_SET");
  EXPECT_EQ(env, (std::vector<std::string>{"A=b=c", "SBX_OUTPUT_TEST=value"}));
}

}  // namespace
}  // namespace sbx::cli
