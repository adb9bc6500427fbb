// What `sbx` says and with which status, where no sandbox is needed: each test has a daemon and a home of its own.
#include <gtest/gtest.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/stat.h>

#include <algorithm>
#include <regex>

#include "instance.h"
#include "processes.h"
#include "terminal.h"

namespace sbx::test {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

class Cli : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = std::make_unique<TemporaryFolder>(TemporaryFolder::make("sbx-cli").value());
    ::setenv("SBX_HOME", (folder_->path() / "home").c_str(), 1);
    ::unsetenv("XDG_RUNTIME_DIR");
    fs::create_directory(workspace());
  }
  void TearDown() override {
    (void)sbx({"daemon", "stop"});
    (void)sbx({"--app-name", "other", "daemon", "stop"});
  }
  fs::path folder() const { return folder_->path(); }
  fs::path workspace() const { return folder_->path() / "project_1"; }

 private:
  std::unique_ptr<TemporaryFolder> folder_;
};

struct Case {
  std::vector<std::string> arguments;
  int status;
  std::string out;  // regular expressions, searched for; "" means empty
  std::string err;
};

std::string spelled(const Case& c) {
  std::string text = "sbx";
  for (const auto& word : c.arguments) text += " " + word;
  return text;
}

void expect_match(const std::string& text, const std::string& pattern, const std::string& what) {
  if (pattern.empty()) {
    EXPECT_EQ(text, "") << what;
  } else if (pattern != ".*") {
    EXPECT_TRUE(std::regex_search(text, std::regex(pattern))) << what << " says:\n" << text << "not: " << pattern;
  }
}

void expect(const std::vector<Case>& cases) {
  for (const auto& c : cases) {
    const auto outcome = sbx(c.arguments);
    EXPECT_EQ(outcome.status, c.status) << spelled(c) << "\n" << outcome.out << outcome.err;
    expect_match(outcome.out, c.out, spelled(c) + " (stdout)");
    expect_match(outcome.err, c.err, spelled(c) + " (stderr)");
  }
}

TEST_F(Cli, WithoutASandbox) {
  expect({
      {{"version"}, 0, "^sbx version: v[0-9]+\\.[0-9]+\\.[0-9]+", ""},
      {{"ls"}, 0, "^No sandboxes found\n$", ""},
      {{"ls", "-q"}, 0, "", ""},
      {{"ls", "--filter", "color=red"}, 0, "^No sandboxes found\n$", ""},
      {{"inspect", "box"}, 1, "", "^ERROR: sandbox 'box' not found\n$"},
      {{"stop", "box"}, 1, "", "^ERROR: sandbox 'box' not found\n$"},
      {{"stop"}, 1, "", "^ERROR: .*SANDBOX"},
      {{"rm"}, 1, "", "^ERROR: name at least one sandbox, or pass --all\n$"},
      {{"rm", "box"}, 1, "", "stdin is not a terminal; use --force to skip confirmation"},
      {{"rm", "--force", "box"}, 1, "", "^ERROR: sandbox 'box' not found\n$"},
      {{"rm", "-f", "--all"}, 0, "", ""},
      {{"prune"}, 1, "", "stdin is not a terminal; use --force"},
      {{"prune", "--force"}, 0, "^Nothing to prune\n$", ""},
      {{"prune", "--dry-run", "--filter", "until=168h"}, 0, "^Nothing to prune\n$", ""},
      {{"prune", "--dry-run", "--filter", "until=2026-01-02T03:04:05Z"}, 0, "^Nothing to prune\n$", ""},
      {{"prune", "--dry-run", "--filter", "since=1h"}, 0, "^Nothing to prune\n$", ""},
      {{"prune", "-f", "--filter", "until=tomorrow"}, 1, "", "not a length of time"},
      {{"prune", "-f", "--filter", "name=x"}, 1, "", "--filter knows until=TIME only"},
      {{"exec", "box", "true"}, 125, "", "^ERROR: sandbox 'box' not found\n$"},
      {{"exec", "box"}, 125, "", "usage: sbx exec"},
      {{"exec", "--no-such-flag", "box", "true"}, 125, "", "no-such-flag"},
      {{"exec", "-d", "box", "true"}, 125, "", "sandbox 'box' not found"},
      {{"exec", "--list", "box"}, 125, "", "sandbox 'box' not found"},
      {{"exec", "--wait", "nothing", "box"}, 125, "", "command 'nothing' not found"},
      {{"exec", "--logs", "nothing", "box"}, 125, "", "command 'nothing' not found"},
      {{"cp", "a", "b"}, 1, "", "exactly one side must be SANDBOX:PATH"},
      {{"cp", "box:/a", "box:/b"}, 1, "", "exactly one side must be SANDBOX:PATH"},
      {{"cp", "box:relative", "."}, 1, "", "container path must be absolute"},
      {{"cp", "box:/etc/passwd", "/tmp"}, 1, "", "sandbox 'box' not found"},
      {{"cp", "/no/such/file", "box:/tmp"}, 1, "", "/no/such/file does not exist"},
      {{"run", "--name", "box"}, 1, "", "sandbox 'box' not found"},
      {{"run", "box"}, 1, "", "`sbx run NAME` is deprecated; use `sbx run --name NAME` instead"},
      {{"login"}, 0, "no account", ""},
      {{"login", "-u", "me", "--password-stdin"}, 0, "no account", ""},
      {{"logout", "-y"}, 0, "no account", ""},
      {{"image", "ls"}, 0, "^No images found", ""},
      {{"image", "rm", "nothing"}, 1, "", "an image id is 16 hex digits"},
      {{"image", "rm", "0123456789abcdef"}, 1, "", "there is no image 0123456789abcdef"},
      {{"template", "ls"}, 0, "^No templates found\n$", ""},
      {{"template", "ls", "-q"}, 0, "", ""},
      {{"template", "rm", "nothing"}, 1, "", "not found"},
      {{"reset"}, 1, "", "stdin is not a terminal; use --force"},
      {{"nonsense"}, 1, "", "nonsense"},
      {{}, 1, "", "interactive interface is not built yet"},
      {{"ls", "--nonsense"}, 1, "", "--nonsense"},
  });
}

TEST_F(Cli, CreateChecksItsArgumentsBeforeAnythingIsMade) {
  const std::string here = workspace();
  std::vector<Case> cases = {
      {{"create"}, 1, "", "AGENT"},
      {{"create", "-q", "juggler", here}, 1, "", "unknown agent \"juggler\"; known agents: .*claude.*shell"},
      {{"create", "-q", "shell", "/no/such/folder"}, 1, "", "workspace /no/such/folder does not exist"},
      {{"create", "-q", "shell", "/etc"}, 1, "", "would hide a system folder"},
      {{"create", "-q", "shell", "/"}, 1, "", "would hide a system folder"},
      {{"create", "-q", "shell", "/dev/null"}, 1, "", "workspace /dev/null"},
      {{"create", "-q", "shell", here, here}, 1, "", "two workspaces are to be mounted at"},
      {{"create", "-q", "shell", folder()}, 1, "", "overlaps sbx's own state"},
      {{"create", "-q", "shell", "-m", "lots", here}, 1, "", "not an amount of memory; write it like 512m or 8g"},
      {{"create", "-q", "shell", "-m", "100m", here}, 1, "", "memory_mib must be between 512"},
      {{"create", "-q", "shell", "--cpus", "-1", here}, 1, "", "cpus must be between 1 and"},
      {{"create", "-q", "shell", "--cpus", "many", here}, 1, "", "--cpus"},
      {{"create", "-q", "shell", "--auto-stop", "soon", here}, 1, "", "not a length of time"},
      {{"create", "-q", "shell", "--env-file", "/no/such/file", here}, 1, "", "/no/such/file"},
      {{"create", "-q", "shell", "-e", "=x", here}, 1, "", "is not KEY=VALUE"},
      {{"create", "-q", "shell", "-t", "nothing", here}, 1, "", "image 'nothing' not found"},
      {{"--cloud", "create", "shell", here}, 1, "", "--cloud is not available"},
      {{"run", "-m", "lots", "shell", here}, 1, "", "not an amount of memory"},
      {{"run", "--cold", "shell", here}, 1, "", "--cold is for a stopped sandbox"},
  };
  for (const std::string name : {"x", "-ab", "ab-", "a_b", "a+b", "a b", "default", "caf\xc3\xa9"})
    cases.push_back({{"create", "-q", "--name", name, "shell", here}, 1, "", "invalid sandbox name"});
  cases.push_back({{"create", "-q", "--name", std::string(64, 'a'), "shell", here}, 1, "", "at most 63 characters"});
  // A file can only be mounted read-only.
  ASSERT_TRUE(write_file_atomically(workspace() / "file", "x"));
  cases.push_back({{"create", "-q", "shell", workspace() / "file"}, 1, "", "append :ro"});
  expect(cases);
  expect({{{"ls"}, 0, "^No sandboxes found\n$", ""}});
}

TEST_F(Cli, WhatIsNotBuiltSaysSo) {
  std::vector<Case> cases;
  for (const char* command :
       {"attach", "env", "kit", "mcp", "move", "settings", "setup", "skills", "ssh", "ttl", "tui", "volume"}) {
    cases.push_back({{command, "whatever", "--flag"}, 1, "", std::string("'sbx ") + command + "' is not built yet"});
  }
  for (const char* flag : {"--kit", "--kit-arg", "--kit-args-file", "--static-mcp", "--skills", "--pull", "--gpu"}) {
    cases.push_back({{"create", "shell", workspace(), flag, "x"}, 1, "", std::string(flag) + ".*is not built yet"});
    cases.push_back({{"run", "shell", workspace(), flag, "x"}, 1, "", std::string(flag) + ".*is not built yet"});
  }
  cases.push_back({{"diagnose", "--upload"}, 1, "", "--upload.*is not built yet"});
  cases.push_back({{"template", "save", "box", "tag"}, 1, "", ".+"});
  expect(cases);
}

TEST_F(Cli, EveryCommandHasHelp) {
  for (const std::vector<std::string>& command : std::vector<std::vector<std::string>>{{"create"},
                                                                                       {"run"},
                                                                                       {"exec"},
                                                                                       {"ls"},
                                                                                       {"inspect"},
                                                                                       {"stop"},
                                                                                       {"rm"},
                                                                                       {"prune"},
                                                                                       {"cp"},
                                                                                       {"version"},
                                                                                       {"daemon"},
                                                                                       {"daemon", "start"},
                                                                                       {"daemon", "stop"},
                                                                                       {"daemon", "status"},
                                                                                       {"daemon", "restart"},
                                                                                       {"diagnose"},
                                                                                       {"reset"},
                                                                                       {"login"},
                                                                                       {"logout"},
                                                                                       {"completion"},
                                                                                       {"image"},
                                                                                       {"image", "ls"},
                                                                                       {"image", "build"},
                                                                                       {"image", "rm"},
                                                                                       {"template"},
                                                                                       {"template", "ls"},
                                                                                       {"template", "rm"}}) {
    auto words = command;
    words.push_back("--help");
    const auto help = sbx(words);
    EXPECT_EQ(help.status, 0) << command.back();
    EXPECT_NE(help.out.find("Usage: "), std::string::npos) << command.back() << help.out;
    EXPECT_EQ(help.err, "");
  }
  const auto all = sbx({"--help"});
  EXPECT_EQ(all.status, 0);
  EXPECT_NE(all.out.find("create a sandbox"), std::string::npos);
  for (const char* group : {"daemon", "image", "template"}) {
    const auto usage = sbx({group});
    EXPECT_EQ(usage.status, 0) << group;
    EXPECT_NE(usage.out.find("Usage: "), std::string::npos) << group;
  }
  EXPECT_FALSE(fs::exists(home() / "sbxd.lock")) << "help needs no daemon";
}

TEST_F(Cli, JsonStandsAloneOnStdoutAndErrorsCarryTheirCode) {
  EXPECT_EQ(sbx({"ls", "--json"}).out, json::parse(R"({"sandboxes":[]})").dump(2) + "\n");
  EXPECT_EQ(sbx_json({"prune", "--dry-run", "--json"}), json::parse(R"({"removed":[]})"));
  EXPECT_EQ(sbx_json({"image", "ls", "--json"}), json::parse(R"({"images":[]})"));
  EXPECT_EQ(sbx_json({"template", "ls", "--json"}), json::parse(R"({"templates":[]})"));
  EXPECT_TRUE(
      std::regex_match(sbx_json({"version", "--json"}).value("version", ""), std::regex("v\\d+\\.\\d+\\.\\d+")));
  const auto daemon = sbx_json({"daemon", "status", "--json"});
  EXPECT_EQ(daemon["status"], "running");
  EXPECT_EQ(daemon["pid"], daemon_pid());
  for (const auto& [arguments, code] :
       std::vector<std::pair<std::vector<std::string>, std::string>>{{{"inspect", "box", "--json"}, "not_found"},
                                                                     {{"prune", "--json"}, "invalid"},
                                                                     {{"prune", "--json", "--filter", "x"}, "invalid"},
                                                                     {{"exec", "--json", "box", "true"}, "not_found"},
                                                                     {{"exec", "--list", "box", "--json"}, "not_found"},
                                                                     {{"ls", "--json", "--nonsense"}, "invalid"},
                                                                     {{"--cloud", "ls", "--json"}, "invalid"}}) {
    const auto outcome = sbx(arguments);
    EXPECT_NE(outcome.status, 0);
    EXPECT_EQ(outcome.out, "");
    const auto error = json::parse(outcome.err, nullptr, false);
    ASSERT_TRUE(error.is_object()) << outcome.err;
    EXPECT_EQ(error["error"]["code"], code) << outcome.err;
    EXPECT_EQ(std::ranges::count(outcome.err, '\n'), 1) << "one line";
  }
}

TEST_F(Cli, ALostDaemonIsAnErrorAndNotAnEmptyList) {
  ASSERT_TRUE(write_file_atomically(folder() / "home", "not a folder"));
  for (const std::vector<std::string>& arguments :
       std::vector<std::vector<std::string>>{{"ls"}, {"ls", "--json"}, {"ls", "-q"}, {"exec", "box", "true"}}) {
    const auto outcome = sbx(arguments);
    EXPECT_EQ(outcome.status, arguments.front() == "exec" ? 125 : 1);
    EXPECT_EQ(outcome.out, "");
    EXPECT_NE(outcome.err, "");
  }
}

TEST_F(Cli, TheDaemonIsStartedOnDemandAndEndsWhenAsked) {
  expect({{{"daemon", "status"}, 0, "^Status: stopped\nSocket: /.*\nLogs: /.*\n$", ""},
          {{"daemon", "stop"}, 0, "not running", ""},
          {{"ls"}, 0, ".*", ""},
          {{"daemon", "status"}, 0, "^Status: running\n", ""},
          {{"daemon", "start"}, 1, "", "is running already"},
          {{"daemon", "start", "-d"}, 0, "^Status: running\n", ""}});
  const int first = daemon_pid();
  struct stat info {};
  const std::string socket = sbx_json({"daemon", "status", "--json"})["socket"];
  ASSERT_EQ(::stat(socket.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777U, 0600U);
  expect({{{"daemon", "restart"}, 0, "Status: running", ""}});
  EXPECT_NE(daemon_pid(), first);
  expect({{{"daemon", "stop"}, 0, "^Daemon stopped", ""}, {{"daemon", "status"}, 0, "^Status: stopped", ""}});
  EXPECT_FALSE(fs::exists(socket));
  // In the foreground it is ours to end.
  auto foreground = Command(command_line({"daemon", "start"})).start();
  ASSERT_TRUE(foreground);
  EXPECT_TRUE(eventually([] { return sbx({"daemon", "status"}).out.starts_with("Status: running"); }));
  foreground->kill(SIGTERM);
  EXPECT_TRUE(foreground->wait().value().success());
}

TEST_F(Cli, InstancesAreSeparate) {
  expect({{{"ls"}, 0, ".*", ""}, {{"--app-name", "other", "ls"}, 0, ".*", ""}});
  const auto mine = sbx_json({"daemon", "status", "--json"});
  const auto other = sbx_json({"--app-name", "other", "daemon", "status", "--json"});
  EXPECT_NE(mine["socket"], other["socket"]);
  EXPECT_NE(mine["home"], other["home"]);
  EXPECT_NE(mine["pid"], other["pid"]);
  expect({{{"--app-name", "other", "daemon", "stop"}, 0, ".*", ""},
          {{"--app-name", "other", "daemon", "status"}, 0, "^Status: stopped", ""},
          {{"daemon", "status"}, 0, "^Status: running", ""},
          {{"--app-name", "../x", "ls"}, 1, "", "--app-name may hold"}});
  auto foreground = Command(command_line({"--app-name", "other", "daemon", "start"})).start();
  ASSERT_TRUE(foreground);
  EXPECT_TRUE(eventually([] {
    return sbx({"--app-name", "other", "daemon", "status"}).out.starts_with("Status: running");
  })) << "in the foreground the name counts too";
}

TEST_F(Cli, QuestionsAreAskedOnATerminalAndNoIsAFailure) {
  for (const std::vector<std::string>& arguments :
       std::vector<std::vector<std::string>>{{"rm", "box"}, {"prune"}, {"reset"}}) {
    Terminal terminal(command_line(arguments), 24, 80);
    EXPECT_TRUE(terminal.shows("(y/N)")) << arguments.front() << terminal.screen();
    terminal.type("n\r");
    EXPECT_TRUE(terminal.shows("cancelled")) << arguments.front() << terminal.screen();
    EXPECT_EQ(terminal.finish(), 1) << arguments.front();
  }
  Terminal terminal(command_line({"reset"}), 24, 80);
  EXPECT_TRUE(terminal.shows("(y/N)"));
  terminal.type("y\r");
  EXPECT_TRUE(terminal.shows("Reset complete!")) << terminal.screen();
  EXPECT_TRUE(terminal.shows("Summary:")) << terminal.screen();
  EXPECT_EQ(terminal.finish(), 0);
  expect({{{"daemon", "status"}, 0, "^Status: stopped", ""}});
}

TEST_F(Cli, DiagnoseTellsInWordsAndInJsonAndItsStatusIsTheVerdict) {
  const auto outcome = sbx({"diagnose", "--json"});
  const auto document = json::parse(outcome.out, nullptr, false);
  ASSERT_TRUE(document.is_object()) << outcome.out;
  EXPECT_EQ(document["version"], "1.0");
  json counted = {{"pass", 0}, {"warn", 0}, {"fail", 0}, {"skip", 0}};
  for (const auto& check : document["checks"]) {
    EXPECT_TRUE(check["name"].is_string());
    EXPECT_TRUE(check["message"].is_string());
    ASSERT_TRUE(counted.contains(check["status"])) << check.dump();
    counted[check["status"].get<std::string>()] = counted[check["status"].get<std::string>()].get<int>() + 1;
  }
  EXPECT_EQ(document["summary"], counted);
  EXPECT_EQ(outcome.status, counted["fail"] == 0 ? 0 : 1);
  EXPECT_EQ(json::parse(sbx({"diagnose", "-o", "json"}).out, nullptr, false)["version"], "1.0");
  EXPECT_NE(sbx({"diagnose"}).out.find("✓ Daemon: running"), std::string::npos);
  EXPECT_TRUE(sbx({"diagnose", "-o", "github-issue"}).out.starts_with("### "));
  expect({{{"diagnose", "-o", "xml"}, 1, "", "xml"}});
}

TEST_F(Cli, CompletionKnowsEveryCommandForFourShells) {
  for (const char* shell : {"bash", "zsh", "fish", "powershell"}) {
    const auto outcome = sbx({"completion", shell});
    EXPECT_EQ(outcome.status, 0) << shell;
    for (const char* word : {"create", "run", "exec", "prune", "template"})
      EXPECT_NE(outcome.out.find(word), std::string::npos) << shell;
  }
  EXPECT_EQ(sbx({"completion", "tcsh"}).status, 1);
  EXPECT_EQ(run(Command({"/bin/bash", "-c", "source /dev/stdin"}), sbx({"completion", "bash"}).out).status, 0);
}

}  // namespace
}  // namespace sbx::test
