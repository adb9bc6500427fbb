#include "sandbox/create_request.h"

#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "sandbox/agents.h"

namespace sbx::sandbox {
namespace {

using nlohmann::json;

TEST(CreateRequest, TakesDefaults) {
  auto request = parse_create_request(json::object(), "/nowhere");
  ASSERT_TRUE(request);
  EXPECT_EQ(request->agent, "shell");
  EXPECT_EQ(request->auto_stop_s, 30);
  EXPECT_TRUE(request->workspaces.empty());
}

TEST(CreateRequest, RefusesMembersThatItDoesNotKnow) {
  const auto refused = parse_create_request({{"workspace", "/tmp"}}, "/nowhere");
  ASSERT_FALSE(refused) << "a sandbox without the workspace that was asked for";
  EXPECT_EQ(refused.error().code, ErrorCode::kInvalid);
  EXPECT_NE(refused.error().describe().find("\"workspace\" is not known here; known: agent, "), std::string::npos);
  EXPECT_FALSE(parse_create_request({{"workspaces", {{{"path", "/tmp"}, {"read_only", true}}}}}, "/nowhere"))
      << "a workspace that would be writable";
}

TEST(CreateRequest, ChecksWorkspaces) {
  auto folder = TemporaryFolder::make("ws");
  ASSERT_TRUE(folder);
  const std::string path = folder->path().native();
  std::ofstream(path + "/file") << "x";
  const auto parse = [&](json workspaces, const std::string& home = "/nowhere") {
    return parse_create_request({{"workspaces", std::move(workspaces)}}, home);
  };
  auto good = parse({path + "/", {{"path", path + "/file"}, {"readonly", true}}});
  ASSERT_TRUE(good) << good.error().describe();
  EXPECT_EQ(good->workspaces[0].path, path);
  EXPECT_TRUE(good->workspaces[1].file);
  EXPECT_FALSE(parse({path + "/file"})) << "a file needs :ro";
  EXPECT_FALSE(parse({path, path}));
  const auto moved = parse({{{"path", path}, {"target", "/elsewhere/./x/"}}, {{"path", path}, {"target", "/y"}}});
  ASSERT_TRUE(moved) << moved.error().describe();
  EXPECT_EQ(moved->workspaces[0].path, "/elsewhere/x");
  EXPECT_EQ(moved->workspaces[0].on_host(), path);
  EXPECT_EQ(moved->workspaces[1].index, 1);
  const auto at = [&](const json& target) {
    json entry = {{"path", path}, {"target", target}};
    return parse(json::array({entry}));
  };
  EXPECT_TRUE(at("/x"));
  EXPECT_FALSE(at(1));
  for (const char* target : {"/", "/proc", "/sys/x", "/dev/shm", "/run/sandbox/x", "/usr", "/usr/bin", "/etc",
                             "/x/../usr", "//usr//", "/home/agent", "relative", "/var/lib/docker/x"}) {
    EXPECT_FALSE(at(target)) << target;
  }
  EXPECT_FALSE(parse({{{"path", path}, {"target", "/x"}}, {{"path", path}, {"target", "/x/"}}})) << "one place twice";
  EXPECT_FALSE(parse({path + "/missing"}));
  EXPECT_FALSE(parse({"relative"}));
  EXPECT_FALSE(parse({"/"}));
  EXPECT_FALSE(parse({"/proc/self"}));
  EXPECT_FALSE(parse({path}, path + "/state")) << "a workspace must not hold sbx's state";
  EXPECT_FALSE(parse({path}, path));
}

TEST(CreateRequest, RefusesWhatIsOutOfRange) {
  for (const json& body : {json{{"cpus", 65}}, json{{"cpus", -1}}, json{{"cpus", "2"}}, json{{"memory_mib", 100}},
                           json{{"name", "a_b"}}, json{{"agent", "nobody"}}, json{{"env", {"NOVALUE"}}},
                           json{{"ssh_agent", 1}}, json{{"ssh_agent", "agent.sock"}}, json{{"ssh_agent", "/dev/null"}},
                           json{{"labels", {{"a", 1}}}}, json{{"auto_stop_s", -1}}}) {
    EXPECT_FALSE(parse_create_request(body, "/nowhere")) << body;
  }
}

TEST(CreateRequest, ChecksPatternsOfPaths) {
  const json body = {{"protect", {"Makefile", "!.idea"}}, {"hide", {".env"}}, {"protect_mode", "deny"}};
  const auto request = parse_create_request(body, "/nowhere");
  ASSERT_TRUE(request) << request.error().describe();
  EXPECT_EQ(request->protection, (store::Protection{{"Makefile", "!.idea"}, {".env"}, true}));
  EXPECT_EQ(parse_create_request({{"protect_mode", "report"}}, "/nowhere")->protection, store::Protection());
  const std::vector<std::pair<json, std::string>> refused = {
      {{{"hide", {"../x"}}}, "\"../x\" is not a pattern"},
      {{{"hide", {""}}}, "is not a pattern"},
      {{{"hide", ".env"}}, "hide"},
      {{{"protect", {"!.idea/x"}}}, "takes out nothing"},
      {{{"hide", {"!.idea"}}}, "takes out nothing"},
      {{{"protect", std::vector<std::string>(101, "a")}}, "at most 100"},
      {{{"protect_mode", "maybe"}}, "must be \"report\" or \"deny\", not \"maybe\""},
      {{{"protect_mode", true}}, "must be \"report\" or \"deny\", not true"}};
  for (const auto& [wrong, why] : refused) {
    const auto answer = parse_create_request(wrong, "/nowhere");
    ASSERT_FALSE(answer) << wrong;
    EXPECT_NE(answer.error().describe().find(why), std::string::npos) << answer.error().describe();
  }
}

TEST(Agents, ReplaceOrExtendTheirArguments) {
  const Agent* claude = find_agent("claude");
  ASSERT_NE(claude, nullptr);
  using Argv = std::vector<std::string>;
  EXPECT_EQ(agent_command(*claude, {}), (Argv{"claude", "--dangerously-skip-permissions"}));
  EXPECT_EQ(agent_command(*claude, {"-p", "hi"}), (Argv{"claude", "--dangerously-skip-permissions", "-p", "hi"}));
  EXPECT_EQ(agent_command(*claude, {"agents"}), (Argv{"claude", "agents"}));
}

}  // namespace
}  // namespace sbx::sandbox
