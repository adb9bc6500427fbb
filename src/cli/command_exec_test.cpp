#include "cli/command_exec.h"

#include <gtest/gtest.h>

namespace sbx::cli {
namespace {

using Words = std::vector<std::string>;

TEST(ExecArguments, WhatFollowsTheCommandIsKeptWordForWord) {
  const auto parsed = parse_exec({"-e", "A=1", "box", "-u", "root", "ls", "-la", "--", "", "--user"});
  ASSERT_TRUE(parsed) << parsed.error().describe();
  EXPECT_EQ(parsed->sandbox, "box");
  EXPECT_EQ(parsed->user, "root");
  EXPECT_EQ(parsed->argv, (Words{"ls", "-la", "--", "", "--user"}));
}

TEST(ExecArguments, ADoubleDashBeforeTheCommandIsDropped) {
  EXPECT_EQ(parse_exec({"box", "--", "-x"})->argv, (Words{"-x"}));
  EXPECT_EQ(parse_exec({"--", "box", "cmd"})->argv, (Words{"cmd"}));
}

TEST(ExecArguments, ShortFlagsMayBeJoined) {
  const auto parsed = parse_exec({"-itw/tmp", "-uagent", "box", "sh"});
  ASSERT_TRUE(parsed);
  EXPECT_TRUE(parsed->tty && parsed->interactive);
  EXPECT_EQ(parsed->workdir, "/tmp");
  EXPECT_EQ(parsed->user, "agent");
}

TEST(ExecArguments, WhatIsMissingOrUnknownIsSaid) {
  EXPECT_EQ(parse_exec({"box"}).error().code, ErrorCode::kInvalid);
  EXPECT_NE(parse_exec({"--nope", "box", "x"}).error().message.find("--nope"), std::string::npos);
  EXPECT_NE(parse_exec({"box", "-w"}).error().message.find("-w"), std::string::npos);
}

TEST(ExecArguments, BackgroundCommandsAreAddressedById) {
  const auto parsed = parse_exec({"--logs=ab-1", "-f", "box"});
  ASSERT_TRUE(parsed);
  EXPECT_EQ(parsed->action, ExecArguments::Action::kLogs);
  EXPECT_EQ(parsed->exec_id, "ab-1");
  EXPECT_TRUE(parsed->follow);
}

}  // namespace
}  // namespace sbx::cli
