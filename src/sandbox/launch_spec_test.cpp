#include "sandbox/launch_spec.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "base/random.h"

namespace sbx::sandbox {
namespace {

TEST(LaunchSpec, HoldsWhatTheProtocolNames) {
  store::Sandbox sandbox;
  sandbox.id = random_uuid();
  sandbox.name = "api-shell";
  sandbox.machine_id = random_hex(32);
  sandbox.workspaces = {{"/work", false, false}, {"/notes", true, true, "/home/user/notes", false, 1}};
  sandbox.env = {"A=1"};
  sandbox.protection = {{"p"}, {"h"}, true};
  const auto spec = launch_spec(sandbox, "clone", {"/run/x", "/s/x", "/t/x", "/i/x"}, {{"A=1"}, {"PEM"}, 9, 3, true});
  for (const char* key : {"sandbox_id", "name", "mode", "runtime_folder", "sandbox_folder", "template_folder",
                          "image_folder", "cpus", "memory_mib", "accelerator", "identity", "workspaces"}) {
    EXPECT_TRUE(spec.contains(key)) << key;
  }
  EXPECT_EQ(spec["workspaces"][1]["index"], 1);
  EXPECT_EQ(spec["workspaces"][1]["file"], true);
  EXPECT_EQ(spec["workspaces"][1]["source"], "/home/user/notes");
  EXPECT_EQ(spec["identity"]["hostname"], "api-shell");
  EXPECT_EQ(spec["identity"]["environment"][0], "A=1");
  EXPECT_EQ(spec["identity"]["authorities"][0], "PEM");
  EXPECT_EQ(spec["gateway_fd"], 9);
  EXPECT_EQ(spec["ssh_agent"], true);
  EXPECT_EQ(spec["identity"]["ssh_agent"], true);
  EXPECT_EQ(spec["protection"], (nlohmann::json{{"protect", {"p"}}, {"hide", {"h"}}, {"deny", true}}));
  EXPECT_EQ(spec["identity"]["entropy"].get<std::string>().size(), 344U);
}

TEST(LaunchSpec, ASpareIsToldWhatItBecomesInTwoParts) {
  store::Sandbox sandbox;
  sandbox.id = random_uuid();
  sandbox.name = "api-shell";
  sandbox.machine_id = random_hex(32);
  sandbox.workspaces = {{"/notes", true, false, "/home/user/notes"}};
  sandbox.protection = {{"p"}, {"h"}, true};
  const GuestFacts facts{{"TOKEN=hush"}, {"PEM"}, 9, 3, true};
  const auto [text, request] = adoption_of(sandbox, facts);
  const auto file = nlohmann::json::parse(text);
  EXPECT_EQ(file["name"], "api-shell");
  EXPECT_EQ(file["workspaces"][0]["source"], "/home/user/notes");
  EXPECT_EQ(file["ssh_agent"], true);
  EXPECT_EQ(file["protection"]["hide"][0], "h");
  EXPECT_EQ(text.find("hush"), std::string::npos) << "what the user put into the environment is in no file";
  EXPECT_FALSE(file.contains("identity"));
  EXPECT_EQ(request["identity"]["hostname"], "api-shell");
  EXPECT_EQ(request["identity"]["entropy"].get<std::string>().size(), 344U);
  EXPECT_EQ(request["workspaces"][0]["path"], "/notes");
  EXPECT_EQ(request["workspaces"][0]["readonly"], true);
  EXPECT_FALSE(request["workspaces"][0].contains("source")) << "not for the guest to know";

  const auto spare = spare_spec(sandbox, {"/run/x", "/s/x", "/t/x", "/i/x"}, facts);
  EXPECT_EQ(spare["spare"], true);
  EXPECT_EQ(spare["mode"], "clone");
  EXPECT_TRUE(spare["identity"].empty());
}

TEST(Random, MakesUuidsAndBase64) {
  const std::string id = random_uuid();
  EXPECT_EQ(id.size(), 36U);
  EXPECT_EQ(id[14], '4');
  EXPECT_NE(id, random_uuid());
  EXPECT_EQ(base64("a"), "YQ==");
  EXPECT_EQ(base64("ab"), "YWI=");
  EXPECT_EQ(base64("abc"), "YWJj");
}

}  // namespace
}  // namespace sbx::sandbox
