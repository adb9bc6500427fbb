// What the commands print about sandboxes, where scripts read it.
#include <gtest/gtest.h>

#include <algorithm>
#include <regex>

#include "instance.h"

namespace sbx::test {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

TEST(CliOfSandboxes, TablesTextsAndDocumentsAreThoseThatScriptsRead) {
  auto folder = TemporaryFolder::make("sbx-cli").value();
  const fs::path project = folder.path() / "my_project";
  fs::create_directory(project);
  struct Remover {
    ~Remover() { (void)sbx({"rm", "-f", "shell-my-project"}); }
  } const remover;
  const auto created = sbx({"create", "--label", "role=db", "--label", "plain", "-e", "GREETING=hi", "shell", project,
                            "--auto-stop", "10m"});
  ASSERT_EQ(created.status, 0) << created.err;
  EXPECT_EQ(created.out, "✓ Created sandbox 'shell-my-project'\n  Workspace: " + project.string() +
                             " (direct mount)\n  Agent: shell\n");
  EXPECT_NE(created.err.find("Creating new sandbox"), std::string::npos);
  const std::string name = "shell-my-project";

  const auto again = sbx({"create", "shell", project});
  EXPECT_EQ(again.status, 1);
  EXPECT_NE(again.err.find("ERROR: sandbox \"" + name + "\" already exists for this workspace; use 'sbx run --name " +
                           name + "' to start it, or pass --name to create another"),
            std::string::npos)
      << again.err;

  const auto table = sbx({"ls"}).out;
  EXPECT_TRUE(std::regex_search(table, std::regex("^SANDBOX +AGENT +STATUS +PORTS +WORKSPACE\n"))) << table;
  EXPECT_TRUE(std::regex_search(table, std::regex(name + "  +shell  +running  +" + project.string() + "\n"))) << table;
  EXPECT_NE(sbx({"ls", "-q"}).out.find(name + "\n"), std::string::npos);
  EXPECT_EQ(sbx({"ls", "-q", "--filter", "label=role=db"}).out, name + "\n");
  EXPECT_EQ(sbx({"ls", "-q", "--filter", "label=plain"}).out, name + "\n");
  EXPECT_EQ(sbx({"ls", "-q", "--filter", "label=role=web"}).out, "");

  json entry;
  const auto rows = sbx_json({"ls", "--json"})["sandboxes"];
  for (const auto& row : rows) {
    if (row["name"] == name) entry = row;
  }
  EXPECT_TRUE(std::regex_match(entry.value("id", ""), std::regex("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")));
  EXPECT_EQ(entry["agent"], "shell");
  EXPECT_EQ(entry["status"], "running");
  EXPECT_EQ(entry["workspaces"], json::array({project.string()}));
  EXPECT_FALSE(entry.contains("ports"));
  const std::regex rfc3339("\\d{4}-\\d\\d-\\d\\dT\\d\\d:\\d\\d:\\d\\d(\\.\\d+)?Z");
  for (const char* member : {"created_at", "last_used_at"})
    EXPECT_TRUE(std::regex_match(entry.value(member, ""), rfc3339)) << entry.dump();

  const auto inspected = sbx_json({"inspect", name, "--json"});
  EXPECT_EQ(inspected["state"], "running");
  EXPECT_FALSE(inspected.contains("status"));
  EXPECT_EQ(inspected["workspace"], project.string());
  EXPECT_TRUE(inspected["accelerator"] == "tcg" || inspected["accelerator"] == "kvm");
  EXPECT_EQ(inspected.value("network_policy", json::object()).value("scope", ""), "global") << inspected;
  EXPECT_NE(inspected.value("gateway", json::object()).value("state", ""), "") << inspected;
  for (const char* member : {"uptime", "image", "daemon_version", "daemon_uptime"})
    EXPECT_TRUE(inspected[member].is_string()) << member;
  EXPECT_NE(sbx({"inspect", name}).out.find("state:"), std::string::npos);

  // `run` finds it by agent and workspace, by name, and the old way; -e counts for the session only.
  const auto by_path = sbx({"run", "-d", "shell", project});
  EXPECT_EQ(by_path.out, entry["id"].get<std::string>() + "\n") << by_path.err;
  EXPECT_EQ(sbx({"run", "-d", "--name", name}).out, entry["id"].get<std::string>() + "\n");
  const auto old = sbx({"run", "-d", name});
  EXPECT_EQ(old.out, entry["id"].get<std::string>() + "\n");
  EXPECT_NE(old.err.find("deprecated"), std::string::npos);
  EXPECT_EQ(sbx({"run", "--name", name, "-e", "EXTRA=yes", "--", "-c", "echo $GREETING $EXTRA; exit 4"}).status, 4);
  EXPECT_EQ(sbx({"run", "--name", name, "--", "-c", "echo $GREETING $EXTRA"}).out, "hi\n");
  for (const std::vector<std::string>& flag : std::vector<std::vector<std::string>>{
           {"--memory", "1g"}, {"--cpus", "1"}, {"--template", "x"}, {"--label", "a=b"}, {"--auto-stop", "1m"}}) {
    const auto refused = sbx({"run", "-d", "--name", name, flag[0], flag[1]});
    EXPECT_EQ(refused.status, 1);
    EXPECT_NE(refused.err.find(flag[0] + " can only be used when creating a new sandbox"), std::string::npos);
  }
  EXPECT_EQ(sbx({"run", "-d", "--name", name, "claude"}).status, 1) << "made for another agent";

  const auto stopped = sbx({"stop", name});
  EXPECT_NE(stopped.out.find("state preserved"), std::string::npos);
  EXPECT_EQ(sbx_json({"inspect", name, "--json"})["state"], "stopped");
  const auto keeps = sbx_json({"prune", "--dry-run", "--json", "--filter", "until=1h"})["removed"];
  EXPECT_EQ(std::ranges::count(keeps, json(name)), 0) << "stopped a moment ago";
  const auto would = sbx({"prune", "--dry-run"});
  EXPECT_NE(would.out.find("Would remove " + name + "\n"), std::string::npos) << would.out;
  const auto woken = sbx({"run", "-d", "--name", name});
  EXPECT_NE(woken.err.find("Sandbox " + name + " started successfully"), std::string::npos) << woken.err;

  const auto both = sbx({"rm", "-f", name, "no-such-box"});
  EXPECT_EQ(both.status, 1);
  EXPECT_NE(both.out.find("'" + name + "' removed"), std::string::npos);
  EXPECT_NE(both.err.find("sandbox 'no-such-box' not found"), std::string::npos);
}

}  // namespace
}  // namespace sbx::test
