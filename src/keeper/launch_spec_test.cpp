#include "keeper/launch_spec.h"

#include <gtest/gtest.h>

#include "base/file.h"

namespace sbx::keeper {
namespace {

constexpr std::string_view kGood =
    R"({"mode":"clone","sandbox_id":"u","runtime_folder":"/r","sandbox_folder":"/s","template_folder":"/t",)"
    R"("image_folder":"/i","cpus":2,"memory_mib":1024,"workspaces":[{"index":0,"path":"/w","readonly":true}],"gateway_fd":7,)"
    R"("jail_slot":5})";

TEST(LaunchSpec, EveryMemberIsRead) {
  auto spec = parse_launch_spec(kGood);
  ASSERT_TRUE(spec) << spec.error().describe();
  EXPECT_EQ(spec->mode, LaunchMode::kClone);
  EXPECT_EQ(spec->disk(), "/s/disk.qcow2");
  EXPECT_EQ(spec->cpus, 2);
  ASSERT_EQ(spec->workspaces.size(), 1U);
  EXPECT_TRUE(spec->workspaces[0].readonly);
  EXPECT_EQ(spec->gateway_fd, 7);
  EXPECT_EQ(spec->jail_slot, 5);
}

TEST(LaunchSpec, ASpareHasNothingOfASandboxs) {
  std::string text(kGood);
  text.replace(text.find("\"jail_slot\""), 0, "\"spare\":true,");
  EXPECT_EQ(parse_launch_spec(text).error().code, ErrorCode::kInvalid) << "it has a workspace";
  const auto list = text.find(",\"workspaces\"");
  text.erase(list, text.find(']', list) + 1 - list);
  const auto spec = parse_launch_spec(text);
  ASSERT_TRUE(spec) << spec.error().describe();
  EXPECT_TRUE(spec->spare);
  text.replace(text.find("clone"), 5, "boot");
  EXPECT_EQ(parse_launch_spec(text).error().code, ErrorCode::kInvalid) << "only a clone is one";
}

TEST(LaunchSpec, AnAdoptionIsReadOnceAndNamesWhatIsWrong) {
  const auto folder = TemporaryFolder::make("sbx-adoption").value();
  EXPECT_FALSE(take_adoption(folder.path())) << "nobody has said so";
  const auto path = folder.path() / "adopt.json";
  ASSERT_TRUE(write_file_atomically(path, R"({"name":"api","ssh_agent":true,"protection":{"hide":["h"],"deny":true},)"
                                          R"("workspaces":[{"index":1,"path":"/w","source":"/here"}]})"));
  const auto adoption = take_adoption(folder.path());
  ASSERT_TRUE(adoption) << adoption.error().describe();
  EXPECT_EQ(adoption->name, "api");
  EXPECT_TRUE(adoption->ssh_agent);
  EXPECT_TRUE(adoption->protection.deny);
  EXPECT_EQ(adoption->protection.hide, std::vector<std::string>{"h"});
  ASSERT_EQ(adoption->workspaces.size(), 1U);
  EXPECT_EQ(adoption->workspaces[0].source, "/here");
  EXPECT_FALSE(take_adoption(folder.path()));
  ASSERT_TRUE(write_file_atomically(path, R"({"name":"api"})"));
  EXPECT_EQ(take_adoption(folder.path()).error().code, ErrorCode::kInvalid);
}

TEST(LaunchSpec, EveryJailOfASandboxHasAUidOfItsOwn) {
  auto spec = parse_launch_spec(kGood);
  ASSERT_TRUE(spec);
  using vm::JailRole;
  for (const int slot : {5, -1}) {
    spec->jail_slot = slot;
    if (!spec->jail_uid(JailRole::kMachine)) GTEST_SKIP() << "needs root";
    EXPECT_NE(spec->jail_uid(JailRole::kMachine), spec->jail_uid(JailRole::kWorker));
    EXPECT_NE(spec->jail_uid(JailRole::kMachine), spec->jail_uid(JailRole::kGateway));
    EXPECT_NE(spec->jail_uid(JailRole::kWorker), spec->jail_uid(JailRole::kGateway));
  }
}

TEST(LaunchSpec, WhatIsMissingOrWrongIsNamed) {
  EXPECT_NE(parse_launch_spec(R"({"mode":"clone"})").error().message.find("runtime_folder"), std::string::npos);
  std::string wrong(kGood);
  wrong.replace(wrong.find("clone"), 5, "dance");
  EXPECT_NE(parse_launch_spec(wrong).error().message.find("dance"), std::string::npos);
  wrong = kGood;
  wrong.replace(wrong.find("slot\":5"), 7, "slot\":8192");
  EXPECT_EQ(parse_launch_spec(wrong).error().code, ErrorCode::kInvalid);
  EXPECT_EQ(parse_launch_spec("{").error().code, ErrorCode::kInvalid);
}

}  // namespace
}  // namespace sbx::keeper
