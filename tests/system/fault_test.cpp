// What survives which death: kill -9 of every program at random moments of every operation.
//
// The seed of the random ones is printed; SBX_SEED=N repeats it. SBX_FULL=1 runs many more rounds.
#include <gtest/gtest.h>
#include <unistd.h>

#include <chrono>
#include <iostream>
#include <random>
#include <set>
#include <thread>

#include "instance.h"
#include "processes.h"

namespace sbx::test {
namespace {

namespace fs = std::filesystem;
using std::chrono::milliseconds;

constexpr const char* kWorker = "sbx-keeper-work";
constexpr const char* kQemu = "qemu-system-x86";
constexpr const char* kFiles = "sbx-files";

pid_t keeper_of(const Sandbox& sandbox) {
  const auto view = sandbox.inspected();
  return view.is_object() && view.contains("keeper_pid") && view["keeper_pid"].is_number()
             ? view["keeper_pid"].get<pid_t>()
             : 0;
}

// What is written to the disk and then to memory, in this order: memory may never be of an older disk.
std::string write_generation(int generation) {
  const std::string n = std::to_string(generation);
  return "echo " + n + " > ~/generation && sync ~/generation ~ && echo " + n + " > /dev/shm/generation";
}

// A command that comes just when its sandbox is dying may fail; soon after, one starts it again.
void expect_generation(const Sandbox& sandbox, int generation) {
  Outcome seen;
  ASSERT_TRUE(eventually(
      [&] {
        seen = sandbox.shell("cat ~/generation; cat /dev/shm/generation 2>/dev/null || echo booted");
        return seen.status != 125;
      },
      60))
      << seen.err;
  ASSERT_EQ(seen.status, 0) << seen.err;
  const std::string n = std::to_string(generation) + "\n";
  EXPECT_TRUE(seen.out == n + n || seen.out == n + "booted\n") << "on disk and in memory: " << seen.out;
}

void expect_clean_disk(const Sandbox& sandbox) {
  const auto errors = sandbox.root("dmesg | grep -E 'EXT4-fs (error|warning)|I/O error' || true");
  EXPECT_EQ(errors.out, "");
}

std::uint32_t seed() {
  if (const char* given = std::getenv("SBX_SEED")) return static_cast<std::uint32_t>(std::strtoul(given, nullptr, 10));
  return std::random_device{}();
}
bool full() { return std::getenv("SBX_FULL") != nullptr; }

TEST(Fault, AKilledFileServerIsReplaced) {
  Sandbox sandbox;
  ASSERT_TRUE(write_file_atomically(sandbox.workspace() / "file", "content\n", 0644));
  const auto started = sbx({"exec", "-d", sandbox.name(), "bash", "-c",
                            "exec 3<file; touch ~/opened; while [ ! -e ~/go ]; do sleep 0.1; done; cat <&3; echo $?"});
  ASSERT_EQ(started.status, 0) << started.err;
  const std::string id = started.out.substr(0, started.out.find('\n'));
  ASSERT_TRUE(eventually([&] { return sandbox.shell("test -e ~/opened").status == 0; }));
  const pid_t keeper = keeper_of(sandbox);
  for (int round = 0; round < 3; ++round) {
    const pid_t server = find_in_tree(keeper, kFiles);
    ASSERT_TRUE(kill_now(server));
    EXPECT_TRUE(eventually([&] {
      const pid_t other = find_in_tree(keeper, kFiles);
      return other != 0 && other != server;
    }));
    EXPECT_TRUE(eventually([&] { return sandbox.shell("cat file").out == "content\n"; }));
  }
  EXPECT_EQ(sandbox.shell("touch ~/go; echo new > made-after").status, 0);
  EXPECT_EQ(read_file(sandbox.workspace() / "made-after").value_or(""), "new\n");
  (void)sbx({"exec", "--wait", id, sandbox.name()});
  const auto logs = sbx({"exec", "--logs", id, sandbox.name()});
  EXPECT_NE((logs.out + logs.err).find("not connected"), std::string::npos) << logs.out << logs.err;
}

// The daemon is killed when a keeper runs that no row knows yet, or hardly later.
TEST(Fault, ADaemonThatIsKilledAsItStartsAKeeperLeavesNoKeeper) {
  const auto folder = TemporaryFolder::make("sbx-early").value();
  ASSERT_EQ(sbx({"ls"}).status, 0);
  for (int round = 0; round < (full() ? 20 : 3); ++round) {
    std::set<fs::path> before;
    for (const auto& entry : fs::directory_iterator(home() / "run")) before.insert(entry.path());
    auto create = Command(command_line({"create", "--name", "early", "shell", folder.path().string()})).start();
    ASSERT_TRUE(create);
    bool seen = false;
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    while (!seen && std::chrono::steady_clock::now() < deadline) {
      std::error_code error;
      for (fs::directory_iterator entry(home() / "run", error), end; entry != end; entry.increment(error))
        seen = seen || (!before.contains(entry->path()) && fs::exists(entry->path() / "keeper.lock", error));
      if (!seen) ::usleep(500);
    }
    EXPECT_TRUE(seen);
    ::usleep(static_cast<useconds_t>(1000 * round));
    ASSERT_TRUE(kill_now(daemon_pid()));
    (void)create->wait();
    ASSERT_EQ(sbx({"ls"}).status, 0);
    (void)sbx({"rm", "-f", "early"});  // if it was told of in time
    EXPECT_TRUE(eventually([] { return sandbox_processes().empty(); })) << describe(sandbox_processes());
  }
}

TEST(Fault, WhoeverDiesTheSandboxStopsWithAReasonAndStartsAgain) {
  Sandbox sandbox;
  int generation = 0;
  for (const char* victim : {kWorker, "sbx-keeper"}) {
    SCOPED_TRACE(victim);
    ASSERT_EQ(sandbox.shell(write_generation(++generation)).status, 0);
    const pid_t keeper = keeper_of(sandbox);
    const auto tree = process_tree(keeper);
    ASSERT_GE(tree.size(), 4U);
    ASSERT_TRUE(kill_now(find_in_tree(keeper, victim)));
    EXPECT_TRUE(eventually([&] { return sandbox.listed()["status"] == "stopped"; }));
    EXPECT_NE(sandbox.inspected().value("reason", ""), "");
    EXPECT_TRUE(eventually([&] { return std::ranges::none_of(tree, runs); })) << describe(sandbox_processes());
    expect_generation(sandbox, generation);
    expect_clean_disk(sandbox);
  }
}

// The keeper's supervisor, which sees the machine's end, is held up for a while: its worker has lost the guest by then.
TEST(Fault, ACommandThatComesAsTheMachineDiesStartsInTheNextOne) {
  Sandbox sandbox;
  for (const bool detached : {false, true}) {
    SCOPED_TRACE(detached ? "exec -d" : "exec");
    const auto tree = process_tree(keeper_of(sandbox));
    const auto supervisor = std::ranges::find(tree, "sbx-keeper", &Process::name);
    const auto machine = std::ranges::find(tree, kQemu, &Process::name);
    ASSERT_TRUE(supervisor != tree.end() && machine != tree.end()) << describe(tree);
    ASSERT_EQ(::kill(supervisor->pid, SIGSTOP), 0);
    EXPECT_TRUE(kill_now(machine->pid));
    EXPECT_TRUE(eventually([&] { return !runs(*machine); }));
    Outcome outcome;
    std::thread client([&] {
      outcome = detached ? sbx({"exec", "-d", sandbox.name(), "touch", "/home/agent/detached"})
                         : sbx({"exec", "-i", sandbox.name(), "cat"}, "through stdin\n");
    });
    std::this_thread::sleep_for(milliseconds(500));
    ::kill(supervisor->pid, SIGCONT);
    client.join();
    EXPECT_EQ(outcome.status, 0) << outcome.err;
    if (!detached) {
      EXPECT_EQ(outcome.out, "through stdin\n");
    }
  }
  EXPECT_TRUE(eventually([&] { return sandbox.shell("test -e ~/detached").status == 0; }));
}

// A machine that booted from its disk has no template's pages to lean on: its image stands alone, also the second one.
TEST(Fault, ABootedMachineIsSavedAndRestoredTwice) {
  Sandbox sandbox;
  ASSERT_TRUE(kill_now(find_in_tree(keeper_of(sandbox), kQemu)));
  ASSERT_TRUE(eventually([&] { return sandbox.listed()["status"] == "stopped"; }));
  for (int generation = 1; generation <= 3; ++generation) {
    ASSERT_EQ(sandbox.shell(write_generation(generation)).status, 0);
    ASSERT_EQ(sandbox.shell("head -c 20000000 /dev/urandom > /dev/shm/blob; sha256sum /dev/shm/blob > ~/sum").status,
              0);
    ASSERT_EQ(sbx({"stop", sandbox.name()}).status, 0);
    const auto image = home() / "sandboxes" / sandbox.listed()["id"].get<std::string>() / "memory.img";
    EXPECT_TRUE(fs::exists(image));
    expect_generation(sandbox, generation);
    EXPECT_EQ(sandbox.shell("sha256sum -c ~/sum").status, 0) << "memory is not what it was";
  }
}

// One operation, one victim, one moment.
class RandomKill {
 public:
  explicit RandomKill(std::uint32_t value) : random_(value) {}

  void round(const std::string& operation, const std::string& victim, Sandbox& sandbox, int& generation) {
    ASSERT_EQ(sandbox.shell(write_generation(++generation)).status, 0);
    if (operation == "start") {
      ASSERT_EQ(sbx({"stop", sandbox.name()}).status, 0);
    }
    const auto delay = milliseconds(std::uniform_int_distribution<int>(0, longest(operation))(random_));
    SCOPED_TRACE(operation + ", " + victim + " killed after " + std::to_string(delay.count()) + " ms");
    std::cout << "  " << operation << " " << victim << " " << delay.count() << " ms" << std::endl;
    Outcome outcome;
    std::thread client([&] { outcome = sbx(arguments(operation, sandbox)); });
    std::this_thread::sleep_for(delay);  // the random moment
    const bool killed = kill_victim(victim, sandbox);
    client.join();
    if (!killed) std::cout << "    (there was none)" << std::endl;
    if (operation == "rm") return expect_gone_or_whole(sandbox, outcome);
    expect_whole(sandbox, generation);
  }

 private:
  static int longest(const std::string& operation) { return operation == "stop" ? 1500 : 700; }

  static std::vector<std::string> arguments(const std::string& operation, const Sandbox& sandbox) {
    if (operation == "stop") return {"stop", sandbox.name()};
    if (operation == "rm") return {"rm", "--force", sandbox.name()};
    return {"exec", sandbox.name(), "bash", "-c", "sleep 0.3; cat ~/generation"};  // starts it, if it is stopped
  }

  // Of this sandbox, whatever it is at: found by what it has open, since the daemon may be busy with the operation.
  static bool kill_victim(const std::string& victim, const Sandbox& sandbox) {
    if (victim == "sbxd") return kill_now(daemon_pid());
    (void)sandbox;
    for (const auto& process : sandbox_processes()) {
      if (process.name == victim) return kill_now(process.pid);
    }
    return false;
  }

  static void expect_whole(const Sandbox& sandbox, int generation) {
    const auto entry = sandbox.listed();
    ASSERT_TRUE(entry.is_object()) << "the sandbox is gone";
    EXPECT_TRUE(entry["status"] == "running" || entry["status"] == "stopped") << entry.dump();
    if (entry["status"] == "stopped") {
      EXPECT_NE(sandbox.inspected().value("reason", ""), "");
    }
    expect_generation(sandbox, generation);
    expect_clean_disk(sandbox);
    const auto folder = home() / "sandboxes" / entry["id"].get<std::string>();
    EXPECT_FALSE(fs::exists(folder / "memory.img")) << "a running sandbox has no memory image";
    EXPECT_FALSE(fs::exists(folder / "memory.tmp")) << "half an image was left behind";
  }

  static void expect_gone_or_whole(const Sandbox& sandbox, const Outcome& outcome) {
    if (outcome.status == 0) {
      EXPECT_TRUE(sandbox.listed().is_null()) << "rm said that it is gone";
    }
    (void)sbx({"rm", "--force", sandbox.name()});
    EXPECT_TRUE(eventually([&] { return sandbox.listed().is_null(); })) << sandbox.listed().dump();
  }

  std::mt19937 random_;
};

TEST(Fault, KillsAtRandomMomentsLoseNothingThatWasPromised) {
  const auto value = seed();
  std::cout << "  SBX_SEED=" << value << std::endl;
  RandomKill kill(value);
  std::vector<std::pair<std::string, std::string>> rounds;
  for (const char* operation : {"exec", "stop", "start", "rm"}) {
    for (const char* victim : {"sbxd", "sbx-keeper", kWorker, kQemu, kFiles}) rounds.emplace_back(operation, victim);
  }
  std::mt19937 order(value);
  std::ranges::shuffle(rounds, order);
  if (!full()) rounds.resize(6);
  auto sandbox = std::make_unique<Sandbox>();
  int generation = 0;
  for (int repeat = 0; repeat < (full() ? 4 : 1); ++repeat) {
    for (const auto& [operation, victim] : rounds) {
      kill.round(operation, victim, *sandbox, generation);
      if (HasFatalFailure()) return;
      if (operation != "rm") continue;
      sandbox = std::make_unique<Sandbox>();
      generation = 0;
    }
  }
  sandbox.reset();
  EXPECT_TRUE(eventually([] { return sandbox_processes().empty(); })) << "orphans: " << describe(sandbox_processes());
}

TEST(Fault, ACreateThatIsKilledIsWholeOrLeavesNothing) {
  const auto value = seed();
  std::cout << "  SBX_SEED=" << value << std::endl;
  std::mt19937 random(value);
  const auto workspace = TemporaryFolder::make("sbx-killed-create").value();
  const std::string name = "killed-" + std::to_string(::getpid());
  std::vector<std::string> victims = {"sbxd", "sbx-keeper", kWorker, kQemu, kFiles};
  std::ranges::shuffle(victims, random);
  if (full()) {
    for (int i = 0; i < 20; ++i) victims.push_back(victims[static_cast<std::size_t>(i) % 5]);
  }
  for (const auto& victim : victims) {
    const auto delay = milliseconds(std::uniform_int_distribution<int>(0, 600)(random));
    SCOPED_TRACE(victim + " killed after " + std::to_string(delay.count()) + " ms");
    Outcome outcome;
    std::thread client([&] { outcome = sbx({"create", "--name", name, "shell", workspace.path().string()}); });
    std::this_thread::sleep_for(delay);
    if (victim == "sbxd") {
      kill_now(daemon_pid());
    } else {
      for (const auto& process : sandbox_processes()) {
        if (process.name == victim && kill_now(process.pid)) break;
      }
    }
    client.join();
    const bool listed = sbx({"ls", "--json"}).out.find('"' + name + '"') != std::string::npos;
    if (outcome.status == 0) {
      EXPECT_TRUE(listed) << "create said that it is there";
    }
    if (listed) {
      // One that was on its way into the machine as it died may have started, so sbx does not start it a second time.
      Outcome used;
      EXPECT_TRUE(eventually([&] {
        used = sbx({"exec", name, "echo", "usable"});
        return used.err.find("before it said whether") == std::string::npos;
      }));
      EXPECT_EQ(used.out, "usable\n") << used.err;
      EXPECT_EQ(sbx({"rm", "--force", name}).status, 0);
    }
    EXPECT_TRUE(eventually([] { return sandbox_processes().empty(); })) << describe(sandbox_processes());
    EXPECT_TRUE(fs::is_empty(home() / "sandboxes")) << "half a sandbox was left behind";
  }
  (void)sbx({"rm", "--force", name});
}

TEST(Fault, AGuestThatRunsOutOfMemorySaysSo) {
  Sandbox sandbox;
  const auto outcome = sandbox.exec({"python3", "-c", "x = []\nwhile True: x.append(bytearray(50_000_000))"});
  EXPECT_EQ(outcome.status, 137);
  EXPECT_NE(outcome.err.find("out of memory"), std::string::npos) << outcome.err;
  EXPECT_EQ(sandbox.shell("echo alive").out, "alive\n");
}

}  // namespace
}  // namespace sbx::test
