// Spare clones: a creation that finds one is quick and otherwise like any other, nobody sees them, and none outlives
// its daemon. An instance of its own, since the daemon reads SBX_SPARES when it starts.
#include <gtest/gtest.h>
#include <unistd.h>

#include <chrono>
#include <set>
#include <sstream>

#include "instance.h"
#include "processes.h"

namespace sbx::test {
namespace {

namespace fs = std::filesystem;

long ticks_of(const std::vector<Process>& processes) {
  long sum = 0;
  for (const auto& process : processes) sum += cpu_ticks(process.pid);
  return sum;
}

class Spares : public ::testing::Test {
 protected:
  void SetUp() override {
    fs::create_directory(here());
    for (const char* shared : {"images", "templates"}) {
      const auto from = fs::path(old_home_) / shared;
      std::error_code error;
      fs::copy(from, here() / shared, fs::copy_options::recursive | fs::copy_options::create_hard_links, error);
      if (error) fs::copy(from, here() / shared, fs::copy_options::recursive);
    }
    ::setenv("SBX_HOME", here().c_str(), 1);
    ::setenv("SBX_SPARES", "1", 1);
  }
  void TearDown() override {
    (void)sbx({"rm", "--all", "--force"});
    EXPECT_EQ(sbx({"daemon", "stop"}).status, 0);
    EXPECT_TRUE(sandbox_processes().empty()) << "what outlives the daemon: " << describe(sandbox_processes());
    EXPECT_TRUE(fs::is_empty(here() / "sandboxes"));
    EXPECT_TRUE(fs::is_empty(here() / "run")) << "something is left in the runtime folder";
    ::unsetenv("SBX_SPARES");
    ::setenv("SBX_HOME", old_home_.c_str(), 1);
  }
  fs::path here() const { return folder_.path() / "home"; }

  // The ids of the spares that are ready.
  static std::set<std::string> ready() {
    std::set<std::string> ids;
    std::error_code error;
    for (const auto& entry : fs::directory_iterator(home() / "sandboxes", error)) {
      if (read_file(entry.path() / "spare", 64).value_or("") == "ready") ids.insert(entry.path().filename());
    }
    return ids;
  }
  static void wait_for_spare() {
    ASSERT_TRUE(eventually([] { return ready().size() == 1; }, 120)) << "no spare is made";
  }
  // A spare comes after a creation of its kind.
  static void make_spare() {
    { const Sandbox first; }
    wait_for_spare();
  }
  static std::string id_of(const Sandbox& sandbox) { return sandbox.inspected().value("id", ""); }

 private:
  std::string old_home_ = home();
  TemporaryFolder folder_ = TemporaryFolder::make("sbx-spares").value();
};

TEST_F(Spares, OneBecomesTheSandboxThatIsCreatedAndNobodySeesItBefore) {
  make_spare();
  const auto spare = *ready().begin();
  EXPECT_EQ(sbx_json({"ls", "--json"})["sandboxes"].size(), 0U);
  EXPECT_NE(sbx({"inspect", spare}).status, 0);
  EXPECT_NE(sbx({"rm", "--force", spare}).status, 0);
  Sandbox sandbox;
  EXPECT_EQ(id_of(sandbox), spare);
  EXPECT_FALSE(fs::exists(home() / "sandboxes" / spare / "spare"));
  const auto seen = sandbox.shell("hostname; cat /etc/machine-id /run/sbx/id; echo $SANDBOX_VM_ID; pwd");
  EXPECT_EQ(seen.out, sandbox.name() + "\n" + seen.out.substr(sandbox.name().size() + 1, 33) + spare + "\n" + spare +
                          "\n" + sandbox.workspace().string() + "\n")
      << seen.err;
  EXPECT_EQ(seen.out.find(std::string(32, '0')), std::string::npos) << "the machine id of nobody";
  EXPECT_EQ(sandbox.shell("echo made > file; cat file").out, "made\n");
  EXPECT_EQ(read_file(sandbox.workspace() / "file").value_or(""), "made\n");
  // It goes on like any other.
  ASSERT_EQ(sbx({"stop", sandbox.name()}).status, 0);
  EXPECT_EQ(sandbox.shell("cat file").out, "made\n");
  const auto changes = sbx({"changes", sandbox.name()});
  EXPECT_NE(changes.out.find("file"), std::string::npos) << changes.out << changes.err;
  EXPECT_EQ(changes.out.find("rehearsal"), std::string::npos) << changes.out;
}

TEST_F(Spares, TwoOfThemShareNothing) {
  make_spare();
  Sandbox first;
  wait_for_spare();
  const auto spare = *ready().begin();
  Sandbox second;
  ASSERT_EQ(id_of(second), spare);
  const std::string script =
      "cat /proc/sys/kernel/random/uuid /etc/machine-id /run/sbx/id; hostname; ls /etc/ssh/*.pub 2>/dev/null | xargs "
      "-r cat";
  std::istringstream one(first.shell(script).out);
  std::istringstream other(second.shell(script).out);
  int lines = 0;
  for (std::string a, b; std::getline(one, a) && std::getline(other, b); ++lines) EXPECT_NE(a, b);
  EXPECT_GE(lines, 4);
  const auto now = std::stoll(second.shell("date +%s").out);
  EXPECT_LE(std::abs(now - std::time(nullptr)), 3);
  if (::geteuid() == 0) {
    EXPECT_NE(memory_kib(first.inspected().value("qemu_pid", 0), "Uid"),
              memory_kib(second.inspected().value("qemu_pid", 0), "Uid"));
  }
}

TEST_F(Spares, EverythingThatACreationCanAskForIsThere) {
  const auto other = TemporaryFolder::make("sbx-other").value();
  ASSERT_TRUE(write_file_atomically(other.path() / "given", "text\n", 0644));
  make_spare();
  const auto spare = *ready().begin();
  Sandbox sandbox({"--env", "COLOUR=green", "--label", "team=a", "--protect-mode", "deny", "--protect", "guarded",
                   "--hide", "hidden", "--publish", "8080", "--deny-network", "example.net:443", "--auto-stop", "7m"},
                  "", {other.path().string() + ":ro"});
  ASSERT_EQ(id_of(sandbox), spare) << "it was not the spare that was taken";
  ASSERT_TRUE(write_file_atomically(sandbox.workspace() / "hidden", "x"));
  EXPECT_EQ(sandbox.shell("echo $COLOUR").out, "green\n");
  EXPECT_EQ(sandbox.shell("cat " + (other.path() / "given").string()).out, "text\n");
  EXPECT_NE(sandbox.shell("touch " + (other.path() / "new").string()).status, 0) << "it is read-only";
  EXPECT_NE(sandbox.shell("mkdir guarded").status, 0) << "it is protected";
  EXPECT_NE(sandbox.shell("cat hidden").status, 0) << "it is hidden";
  const auto view = sandbox.inspected();
  EXPECT_EQ(view["labels"]["team"], "a") << view.dump();
  EXPECT_EQ(view.value("auto_stop_s", 0), 420) << view.dump();
  const auto ports = sbx_json({"ports", sandbox.name(), "--json"});
  EXPECT_NE(ports.dump().find("8080"), std::string::npos) << ports.dump();
  const auto rules = sbx({"policy", "ls", "--wide", sandbox.name()});
  EXPECT_NE(rules.out.find("example.net"), std::string::npos) << rules.out << rules.err;
  EXPECT_TRUE(eventually([&] { return sandbox.inspected()["gateway"]["state"] == "configured"; }))
      << sandbox.inspected().dump();
  const auto denied = sandbox.shell("curl -sS -m 20 http://example.net:443/ -o /dev/null -w '%{http_code}'");
  EXPECT_EQ(denied.out, "403") << denied.err;
}

TEST_F(Spares, ACloneAndAnSshAgentAreGivenToOne) {
  const auto folder = TemporaryFolder::make("sbx-repository").value();
  const auto made = run(Command({"/bin/bash", "-euc",
                                 "cd \"$0\"; git init -q .; echo text > file; git add file; git -c user.name=n -c "
                                 "user.email=e@example.com commit -qm first",
                                 folder.path().string()}));
  ASSERT_EQ(made.status, 0) << made.err;
  const auto keys = TemporaryFolder::make("sbx-agent").value();
  const auto socket = (keys.path() / "socket").string();
  auto agent = Command({"/usr/bin/ssh-agent", "-D", "-a", socket}).die_with_parent().start();
  ASSERT_TRUE(agent);
  ASSERT_TRUE(eventually([&] { return fs::exists(socket); }, 20));
  make_spare();
  const auto spare = *ready().begin();
  ::setenv("SSH_AUTH_SOCK", socket.c_str(), 1);
  const auto created = sbx({"create", "--clone", "--ssh-agent", "--name", "cloned", "shell", folder.path().string()});
  ::unsetenv("SSH_AUTH_SOCK");
  ASSERT_EQ(created.status, 0) << created.err;
  EXPECT_EQ(sbx_json({"inspect", "cloned", "--json"})["id"], spare);
  const auto seen = sbx({"exec", "cloned", "bash", "-c", "git log --format=%s; cat file; ssh-add -l; echo x > new"});
  EXPECT_EQ(seen.out, "first\ntext\nThe agent has no identities.\n") << seen.err;
  EXPECT_FALSE(fs::exists(folder.path() / "new")) << "it works on a clone";
}

TEST_F(Spares, AnotherSizeGetsItsOwn) {
  make_spare();
  const auto spare = *ready().begin();
  Sandbox larger({"--memory", "1g"});
  EXPECT_NE(id_of(larger), spare);
  EXPECT_EQ(larger.shell("echo usable").out, "usable\n");
}

TEST_F(Spares, OneCostsNoCpuAndItsWaitIsNotTheSandboxsIdleTime) {
  make_spare();
  auto spare = sandbox_processes();
  ASSERT_FALSE(spare.empty());
  long used = 0;
  for (int i = 0; i < 3; ++i) {  // it may have just been made
    const long before = ticks_of(spare);
    EXPECT_TRUE(stays([] { return true; }, std::chrono::seconds(4)));
    used = ticks_of(spare) - before;
    if (used <= 1) break;
  }
  EXPECT_LE(used, 1) << "a spare uses CPU time";
  const auto id = *ready().begin();
  Sandbox sandbox({"--auto-stop", "5s"});  // shorter than it has waited
  ASSERT_EQ(id_of(sandbox), id);
  EXPECT_TRUE(stays([&] { return sandbox.status() == "running"; }, std::chrono::seconds(3)));
  EXPECT_TRUE(eventually([&] { return sandbox.status() == "stopped"; }, 60));
}

TEST_F(Spares, ADaemonThatIsKilledLeavesNone) {
  make_spare();
  const auto spare = sandbox_processes();
  ASSERT_TRUE(kill_now(daemon_pid()));
  // Without another daemon.
  EXPECT_TRUE(eventually([&] { return std::ranges::none_of(spare, runs); })) << describe(sandbox_processes());
  EXPECT_EQ(sbx({"ls"}).status, 0);
  EXPECT_TRUE(fs::is_empty(home() / "sandboxes")) << "its disk is left behind";
}

TEST_F(Spares, ADaemonThatIsKilledWhileOneIsMadeOrTakenLeavesAllOrNothing) {
  const auto workspace = TemporaryFolder::make("sbx-killed-adoption").value();
  for (int round = 0; round < (full() ? 12 : 4); ++round) {
    make_spare();
    Outcome outcome;
    auto create = Command(command_line({"create", "--name", "taken", "shell", workspace.path().string()})).start();
    ASSERT_TRUE(create);
    ::usleep(static_cast<useconds_t>(25'000 * round));
    ASSERT_TRUE(kill_now(daemon_pid()));
    (void)create->wait();
    const bool listed = sbx({"ls", "--json"}).out.find("\"taken\"") != std::string::npos;
    if (listed) {
      const auto used = sbx({"exec", "taken", "echo", "usable"});
      EXPECT_EQ(used.out, "usable\n") << used.err;
      EXPECT_EQ(sbx({"rm", "--force", "taken"}).status, 0);
    }
    ASSERT_EQ(sbx({"daemon", "stop"}).status, 0);
    EXPECT_TRUE(eventually([] { return sandbox_processes().empty(); })) << describe(sandbox_processes());
    EXPECT_TRUE(fs::is_empty(home() / "sandboxes")) << "round " << round;
  }
}

TEST_F(Spares, OneThatDiesMeanwhileIsNoHindrance) {
  make_spare();
  const auto id = *ready().begin();
  pid_t qemu = 0;
  for (const auto& process : sandbox_processes()) {
    if (process.name == "qemu-system-x86") qemu = process.pid;
  }
  ASSERT_TRUE(kill_now(qemu));
  Sandbox sandbox;  // at once: the daemon may not know yet
  EXPECT_EQ(sandbox.shell("echo usable").out, "usable\n");
  EXPECT_TRUE(eventually([&] { return !ready().contains(id); }));
}

TEST_F(Spares, ACreationThatFailsWithOneLeavesNothing) {
  make_spare();
  const auto id = *ready().begin();
  const Sandbox holder({"--memory", "1g", "--publish", "18477:80"});
  const auto workspace = TemporaryFolder::make("sbx-refused").value();
  const auto refused =
      sbx({"create", "--name", "refused", "--publish", "18477:80", "shell", workspace.path().string()});
  EXPECT_NE(refused.status, 0);
  EXPECT_EQ(sbx({"create", "--name", holder.name(), "shell", workspace.path().string()}).status, 1)
      << "the name is taken";
  EXPECT_NE(sbx({"inspect", "refused"}).status, 0);
  std::size_t folders = 0;
  for (const auto& entry : fs::directory_iterator(home() / "sandboxes"))
    if (!fs::exists(entry.path() / "spare")) ++folders;
  EXPECT_EQ(folders, 1U) << "of the one that is there";
}

TEST_F(Spares, ATemplateIsRemovedInSpiteOfItsSpareAndTheDaemonEndsAsEver) {
  make_spare();
  const auto listed = sbx_json({"template", "ls", "--json"});
  std::string id;
  for (const auto& entry : listed["templates"]) {
    if (entry["memory_mib"] == 2048) id = entry["id"];
  }
  const auto before = sandbox_processes();
  const auto removed = sbx({"template", "rm", id});
  EXPECT_EQ(removed.status, 0) << removed.err;
  EXPECT_TRUE(ready().empty());
  EXPECT_TRUE(eventually([&] { return std::ranges::none_of(before, runs); })) << describe(sandbox_processes());
  EXPECT_TRUE(stays([] { return sandbox_processes().empty(); }, std::chrono::seconds(5))) << "it is made again";
}

}  // namespace
}  // namespace sbx::test
