// `sbx policy` against a real daemon of its own; no VM.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>

#include "instance.h"
#include "policy/policy_log.h"
#include "terminal.h"

namespace sbx::test {
namespace {

using nlohmann::json;
using testing::HasSubstr;

class PolicyCommands : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = std::make_unique<TemporaryFolder>(TemporaryFolder::make("sbx-policy").value());
    ::setenv("SBX_HOME", (folder_->path() / "home").c_str(), 1);
  }
  void TearDown() override { (void)sbx({"daemon", "stop"}); }
  json parsed(const std::vector<std::string>& arguments) {
    const auto done = sbx(arguments);
    EXPECT_EQ(done.status, 0) << done.err;
    return json::parse(done.out, nullptr, false);
  }
  bool allowed(const std::string& target, const std::vector<std::string>& more = {}) {
    std::vector<std::string> arguments = {"policy", "check", "network", target, "--json"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return parsed(arguments).value("allowed", false);
  }
  std::unique_ptr<TemporaryFolder> folder_;
};

TEST_F(PolicyCommands, InitialisesOnceAndResets) {
  EXPECT_EQ(sbx({"policy", "ls"}).out, "No policy rules\n");
  EXPECT_EQ(sbx({"policy", "init"}).status, 1) << "no terminal to ask on";
  const auto unknown = sbx({"policy", "init", "open"});
  EXPECT_EQ(unknown.status, 1);
  EXPECT_THAT(unknown.err, HasSubstr("allow-all, balanced or deny-all"));
  EXPECT_EQ(sbx({"policy", "init", "balanced"}).out, "Network policy initialized: balanced\n");
  const auto again = sbx({"policy", "init", "allow-all"});
  EXPECT_EQ(again.status, 1);
  EXPECT_THAT(again.err, HasSubstr("already"));
  EXPECT_TRUE(allowed("https://registry.npmjs.org/x"));
  EXPECT_FALSE(allowed("example.com"));
  EXPECT_EQ(sbx({"policy", "reset"}).status, 1) << "destructive, so it asks";
  EXPECT_EQ(sbx({"policy", "reset", "-f"}).status, 0);
  EXPECT_FALSE(allowed("registry.npmjs.org"));
  EXPECT_EQ(sbx({"policy", "init", "allow-all"}).status, 0);
  EXPECT_TRUE(allowed("example.com:25"));
  EXPECT_FALSE(allowed("169.254.169.254"));
  EXPECT_FALSE(allowed("host.docker.internal:80"));
}

TEST_F(PolicyCommands, AsksOnATerminalForAPresetAndTakesNothingElse) {
  const auto answered = [](const std::string& answer) {
    Terminal terminal(command_line({"policy", "init"}), 24, 80);
    EXPECT_TRUE(terminal.shows("1) balanced")) << terminal.screen();
    EXPECT_TRUE(terminal.shows("Choice [1]: ")) << terminal.screen();
    terminal.type(answer);
    return terminal.finish();
  };
  EXPECT_EQ(answered("open\n"), 1);
  EXPECT_EQ(answered("\x04"), 1) << "the end of input is no answer";
  EXPECT_EQ(sbx({"policy", "ls"}).out, "No policy rules\n") << "nothing was chosen";
  EXPECT_EQ(answered("3\n"), 0);
  EXPECT_FALSE(allowed("registry.npmjs.org"));
  EXPECT_EQ(sbx({"policy", "reset", "-f"}).status, 0);
  EXPECT_EQ(answered("\n"), 0) << "the first is the default";
  EXPECT_TRUE(allowed("registry.npmjs.org"));
}

TEST_F(PolicyCommands, OfANewInstallationAreAskedForBeforeTheFirstSandboxAndOnlyOnATerminal) {
  // The daemon takes no such name.
  const std::vector<std::string> create = {"create", "--name", "a/b", "shell", folder_->path().string()};
  {
    Terminal terminal(command_line(create), 24, 80);
    EXPECT_TRUE(terminal.shows("Choice [1]: ")) << terminal.screen();
    terminal.type("2\n");
    EXPECT_EQ(terminal.finish(), 1);
  }
  EXPECT_TRUE(allowed("example.com:25")) << "allow-all was chosen";
  {
    Terminal terminal(command_line(create), 24, 80);
    EXPECT_EQ(terminal.finish(), 1);
    EXPECT_EQ(terminal.screen().find("Choice"), std::string::npos) << "asked once";
  }
  EXPECT_EQ(sbx({"policy", "reset", "-f"}).status, 0);
  EXPECT_EQ(sbx(create).err.find("Choice"), std::string::npos) << "nobody to ask";
}

TEST_F(PolicyCommands, AddsListsInspectsAndRemovesRules) {
  ASSERT_EQ(sbx({"policy", "init", "deny-all"}).status, 0);
  const auto added = sbx({"policy", "allow", "network", "Example.com, **.example.org:443"});
  ASSERT_EQ(added.status, 0) << added.err;
  EXPECT_THAT(added.out,
              testing::MatchesRegex("Policy added: [0-9a-f-]{36} \\(example.com, \\*\\*.example.org:443\\)\n"));
  ASSERT_EQ(sbx({"policy", "deny", "network", "bad.example.org"}).status, 0);
  EXPECT_TRUE(allowed("a.example.org"));
  EXPECT_FALSE(allowed("a.example.org:80"));
  EXPECT_FALSE(allowed("bad.example.org"));
  EXPECT_FALSE(allowed("bad.example.org", {"--protocol", "udp"}));

  EXPECT_EQ(sbx({"policy", "ls"}).out,
            "POLICY         SOURCE   APPLIES TO   SUMMARY\n"
            "local-policy   local    all          network: 2 allow, 1 deny\n");
  const json rules = parsed({"policy", "ls", "--json"})["rules"];
  ASSERT_EQ(rules.size(), 2U);
  for (const char* member : {"id", "name", "policy_id", "scope", "applies_to", "resource_type", "decision", "resources",
                             "origin", "layer", "status", "editable"})
    EXPECT_TRUE(rules[0].contains(member)) << member;
  EXPECT_EQ(rules[0]["scope"], "global");
  EXPECT_EQ(rules[1]["protocols"], (json{"tcp", "udp"}));
  EXPECT_EQ(parsed({"policy", "ls", "--json", "--decision", "deny"})["rules"].size(), 1U);
  EXPECT_EQ(parsed({"policy", "ls", "--json", "--protocol", "udp"})["rules"].size(), 1U);
  EXPECT_THAT(sbx({"policy", "ls", "--wide"}).out, HasSubstr("bad.example.org"));
  const std::string id = rules[0]["id"];
  EXPECT_THAT(sbx({"policy", "inspect", id}).out, HasSubstr("**.example.org:443"));
  EXPECT_EQ(parsed({"policy", "inspect", id, "--json"})["id"], id);
  EXPECT_EQ(parsed({"policy", "inspect", "local-policy", "--json"})["rules"].size(), 2U);
  EXPECT_EQ(sbx({"policy", "inspect", "nothing"}).status, 1);

  const auto nothing = sbx({"policy", "rm", "network", "-f"});
  EXPECT_EQ(nothing.status, 1);
  EXPECT_THAT(nothing.err, HasSubstr("at least one selector is required: use --id or --resource"));
  EXPECT_THAT(sbx({"policy", "rm", "network", "--resource", "example.com"}).err, HasSubstr("use --force"));
  EXPECT_EQ(sbx({"policy", "rm", "network", "--resource", "EXAMPLE.com", "-f"}).out,
            "Policy removed: resources=EXAMPLE.com\n");
  EXPECT_FALSE(allowed("example.com"));
  EXPECT_TRUE(allowed("example.org"));
  EXPECT_EQ(sbx({"policy", "rm", "network", "--id", id, "--force"}).out,
            "Policy removed: resources=**.example.org:443\n");
  const auto gone = sbx({"policy", "rm", "network", "--id", id, "--force"});
  EXPECT_EQ(gone.status, 1);
  EXPECT_THAT(gone.err, HasSubstr("rule not found"));
}

TEST_F(PolicyCommands, RefusesWhatItDoesNotUnderstand) {
  for (const char* resource : {"*", "https://example.com", "10.0.0.1/8", "2001:db8::1", "localhost", "a b"}) {
    const auto done = sbx({"policy", "allow", "network", resource});
    EXPECT_EQ(done.status, 1) << resource;
    EXPECT_THAT(done.err, testing::StartsWith("ERROR: resource ")) << resource;
  }
  EXPECT_THAT(sbx({"policy", "allow", "network", "my-sandbox", "example.com"}).err, HasSubstr("--sandbox"));
  EXPECT_THAT(sbx({"policy", "allow", "network", "a.com", "--sandbox", "nobody"}).err,
              HasSubstr("sandbox 'nobody' not found"));
  EXPECT_EQ(sbx({"policy", "allow", "network", "a.com", "--path", "/x"}).status, 1);
  EXPECT_EQ(sbx({"policy", "allow", "network", "10.0.0.0/8", "--method", "GET"}).status, 1);
  EXPECT_EQ(sbx({"policy", "allow", "network", "a.com", "--protocol", "icmp"}).status, 1);
  EXPECT_EQ(parsed({"policy", "ls", "--json"})["rules"], json::array());
}

TEST_F(PolicyCommands, ChecksAsTheGatewayJudges) {
  ASSERT_EQ(sbx({"policy", "allow", "network", "localhost:8080,10.1.0.0/16"}).status, 0);
  ASSERT_EQ(
      sbx({"policy", "allow", "network", "api.example.com", "--method", "get,head", "--path", "/repos/**"}).status, 0);
  EXPECT_TRUE(allowed("host.docker.internal:8080"));
  EXPECT_TRUE(allowed("http://127.0.0.1:8080/x"));
  EXPECT_FALSE(allowed("localhost:8081"));
  EXPECT_TRUE(allowed("10.1.2.3:22"));
  EXPECT_FALSE(allowed("10.2.2.3"));
  EXPECT_EQ(sbx({"policy", "check", "network", "10.1.2.3"}).out.substr(0, 21), "Allowed: 10.1.2.3:443");
  const auto denied = sbx({"policy", "check", "network", "example.com", "--verbose"});
  EXPECT_EQ(denied.status, 0);
  EXPECT_EQ(denied.out.substr(0, 23), "Denied: example.com:443");
  const json http = parsed({"policy", "check", "network", "api.example.com", "--json"});
  EXPECT_TRUE(http.value("depends_on_request", false));
  EXPECT_EQ(http["action"], "net:connect:tcp");
  EXPECT_EQ(http["context"], "global");
  EXPECT_TRUE(allowed("api.example.com", {"--method", "GET", "--path", "/repos/a"}));
  EXPECT_FALSE(allowed("api.example.com", {"--method", "POST", "--path", "/repos/a"}));
  EXPECT_THAT(sbx({"policy", "ls"}).out, HasSubstr("network: 2 allow; http: 1 allow"));
  ASSERT_EQ(sbx({"policy", "deny", "network", "host.docker.internal"}).status, 0);
  EXPECT_FALSE(allowed("localhost:8080")) << "a deny for one name of the host holds for all";
  EXPECT_EQ(sbx({"policy", "check", "network", "a:b"}).status, 1);
}

TEST_F(PolicyCommands, ManagesProfiles) {
  EXPECT_EQ(sbx({"policy", "profile", "ls"}).out, "No profiles found\n");
  EXPECT_EQ(sbx({"policy", "allow", "network", "a.com", "--profile", "web"}).status, 1);
  ASSERT_EQ(sbx({"policy", "profile", "create", "web"}).status, 0);
  EXPECT_EQ(sbx({"policy", "profile", "create", "web"}).status, 1);
  ASSERT_EQ(sbx({"policy", "allow", "network", "a.com", "--profile", "web"}).status, 0);
  EXPECT_FALSE(allowed("a.com"));
  EXPECT_EQ(parsed({"policy", "profile", "ls", "--json"})["profiles"][0]["rules"], 1);
  EXPECT_THAT(sbx({"policy", "ls"}).out, HasSubstr("profile:web"));
  EXPECT_EQ(sbx({"policy", "profile", "attach", "web", "nobody"}).status, 1);
  ASSERT_EQ(sbx({"policy", "profile", "rm", "web"}).status, 0);
  EXPECT_EQ(sbx({"policy", "ls"}).out, "No policy rules\n");
}

TEST_F(PolicyCommands, ShowsTheLogOfWhatHappened) {
  EXPECT_EQ(sbx({"policy", "log"}).out, "No policy log entries found\n");
  ASSERT_EQ(sbx({"daemon", "stop"}).status, 0);
  {
    auto database = store::Database::open(home() / "store.db").value();
    policy::PolicyLog log(database);
    json entry = {{"at", "2020-01-01T00:00:00Z"},
                  {"kind", "transparent"},
                  {"host", "a.com"},
                  {"port", 443},
                  {"protocol", "tcp"},
                  {"allowed", true},
                  {"rule", "my rule"},
                  {"origin", "local"},
                  {"reason", "fine"}};
    for (int i = 0; i < 3; ++i) log.record("id-1", "gone", entry);
    entry["allowed"] = false;
    entry["host"] = "evil\x1b[31m.com";
    log.record("id-1", "gone", entry);
  }
  const std::string text = sbx({"policy", "log", "gone"}).out;
  EXPECT_THAT(text, HasSubstr("Allowed requests:\nSANDBOX"));
  EXPECT_THAT(text, HasSubstr("Blocked requests:\nSANDBOX"));
  EXPECT_THAT(text, testing::ContainsRegex(
                        "gone +network +a.com:443 +transparent +my rule +fine +[0-9:]{8} [0-9]{2}-[A-Z][a-z]{2} +3"));
  EXPECT_EQ(text.find('\x1b'), std::string::npos);
  const json log = parsed({"policy", "log", "--json"});
  EXPECT_EQ(log["allowed_hosts"][0]["count_since"], 3);
  EXPECT_EQ(log["blocked_hosts"][0]["vm_name"], "gone");
  EXPECT_EQ(sbx({"policy", "log", "-q", "--type", "network"}).out, "a.com\nevil\\x1b[31m.com\n");
  EXPECT_EQ(sbx({"policy", "log", "--type", "filesystem"}).out, "No policy log entries found\n");
  EXPECT_EQ(sbx({"policy", "log", "nobody"}).status, 1);
}

TEST_F(PolicyCommands, ADaemonMayBeStartedWithAPolicy) {
  ASSERT_EQ(sbx({"daemon", "start", "-d", "--policy", "deny-all"}).status, 0);
  EXPECT_EQ(sbx({"daemon", "start", "-d", "--policy", "deny-all"}).status, 0);
  EXPECT_EQ(sbx({"daemon", "start", "-d", "--policy", "balanced"}).status, 1);
  EXPECT_EQ(sbx({"policy", "init", "balanced"}).status, 1);
}

TEST_F(PolicyCommands, ACreationWithABadRuleFailsBeforeAnythingIsMade) {
  const auto done = sbx({"create", "--allow-network", "*", "shell"});
  EXPECT_EQ(done.status, 1);
  EXPECT_THAT(done.err, HasSubstr("resource \"*\""));
  EXPECT_EQ(sbx({"ls"}).out, "No sandboxes found\n");
}

}  // namespace
}  // namespace sbx::test
