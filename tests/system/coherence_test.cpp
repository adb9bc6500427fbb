// Both sides change the same tree, and every command in the sandbox must see it as it was when the command started.
// SBX_FULL=1 makes it longer.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <atomic>
#include <cstdlib>
#include <map>
#include <random>
#include <thread>

#include "instance.h"

namespace sbx::test {
namespace {

namespace fs = std::filesystem;

bool full() { return std::getenv("SBX_FULL") != nullptr; }

class Coherence : public ::testing::Test {
 protected:
  static void SetUpTestSuite() { sandbox = std::make_unique<Sandbox>(); }
  static void TearDownTestSuite() { sandbox.reset(); }
  static fs::path host(const std::string& name) { return sandbox->workspace() / name; }
  static void write_host(const fs::path& path, std::string_view text, int flags = O_TRUNC) {
    auto file = open_file(path, O_WRONLY | O_CREAT | flags, 0644);
    ASSERT_TRUE(file) << file.error().describe();
    ASSERT_TRUE(write_all(file->get(), text));
  }
  static std::unique_ptr<Sandbox> sandbox;
};
std::unique_ptr<Sandbox> Coherence::sandbox;

// One line for each thing under a folder; the same for both sides.
constexpr std::string_view kPicture = R"(
import hashlib, os, sys
lines = []
for folder, folders, names in os.walk(sys.argv[1]):
    for name in folders + names:
        path = os.path.join(folder, name)
        status = os.lstat(path)
        what = "dir"
        if os.path.islink(path):
            what = os.readlink(path)
        elif os.path.isfile(path):
            with open(path, "rb") as file:
                data = file.read()
            assert len(data) == status.st_size, (path, len(data), status.st_size)
            what = f"{status.st_size} {hashlib.sha256(data).hexdigest()} {status.st_mode & 0o777:o} {status.st_nlink}"
        lines.append(f"{os.path.relpath(path, sys.argv[1])} {what}")
print("\n".join(sorted(lines)))
)";

// Random changes to a tree, the same kinds for both sides; the arguments are the folder, a seed and how many.
constexpr std::string_view kChanges = R"(
import os, random, sys
top, seed, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
random.seed(seed)
names = [f"{folder}{name}" for folder in ("", "a/", "b/", "a/c/") for name in "pqrstu"]
os.chdir(top)
for _ in range(count):
    name, other = random.choice(names), random.choice(names)
    try:
        kind = random.randrange(12)
        if kind <= 2:
            with open(name, "wb") as file:
                file.write(os.urandom(random.randrange(20000)))
        elif kind == 3:  # in place, the size stays
            with open(name, "r+b") as file:
                file.write(os.urandom(min(100, os.path.getsize(name))))
        elif kind == 4:
            os.truncate(name, random.randrange(30000))
        elif kind == 5:
            with open(name, "ab") as file:
                file.write(os.urandom(random.randrange(5000)))
        elif kind == 6:
            os.unlink(name)
        elif kind == 7:
            os.rename(name, other)
        elif kind == 8:
            with open(name + ".new", "wb") as file:
                file.write(os.urandom(random.randrange(20000)))
            os.replace(name + ".new", other)
        elif kind == 9:
            os.chmod(name, random.choice((0o600, 0o644, 0o640)))
        elif kind == 10:
            os.link(name, other)
        else:
            if os.path.isdir("a"):
                os.rename("a", "z")
            elif os.path.isdir("z"):
                os.rename("z", "a")
    except (FileNotFoundError, FileExistsError, NotADirectoryError):
        pass
    except PermissionError:  # the guest must not change what the host has linked
        if os.path.exists(name) and os.stat(name).st_nlink == 1:
            raise
)";

std::string run_host(const std::vector<std::string>& command) {
  auto output = Command(command).output();
  EXPECT_TRUE(output) << output.error().describe();
  return output.value_or("");
}

TEST_F(Coherence, EveryCommandSeesWhatEitherSideDidBefore) {
  fs::create_directories(host("tree/a/c"));
  fs::create_directories(host("tree/b"));
  write_host(host("picture.py"), kPicture);
  write_host(host("changes.py"), kChanges);
  const std::string tree = host("tree").string();
  const int rounds = full() ? 100 : 12;
  for (int round = 0; round < rounds; ++round) {
    const auto seed = std::to_string(round);
    if (round % 3 == 2) {
      const auto changed = sandbox->exec({"python3", host("changes.py").string(), tree, seed, "40"});
      ASSERT_EQ(changed.status, 0) << changed.err;
    } else {
      run_host({"python3", host("changes.py").string(), tree, seed, "40"});
    }
    const auto seen = sandbox->exec({"python3", host("picture.py").string(), tree});
    ASSERT_EQ(seen.status, 0) << seen.err;
    ASSERT_EQ(seen.out, run_host({"python3", host("picture.py").string(), tree})) << "round " << round;
  }
}

TEST_F(Coherence, TheSmallestChangesAreSeenByTheNextCommand) {
  write_host(host("f"), "0000");
  for (int i = 0; i < (full() ? 100 : 10); ++i) {
    const auto text = std::to_string(1000 + i);
    write_host(host("f"), text, 0);  // in place: neither size nor inode changes
    ASSERT_EQ(sandbox->exec({"cat", host("f").string()}).out, text);
    ASSERT_EQ(sandbox->exec({"cat", host("f").string()}).out, text);
  }
  fs::remove(host("f"));
  EXPECT_NE(sandbox->exec({"cat", host("f").string()}).status, 0);
  EXPECT_NE(sandbox->exec({"test", "-e", host("f").string()}).status, 0);
  fs::create_directory(host("f"));
  EXPECT_EQ(sandbox->exec({"test", "-d", host("f").string()}).status, 0);
}

// A reader in the guest that never stops, while the host replaces, rewrites, truncates and removes what it reads. What
// is replaced in one step is never seen in part, and nothing ever goes back in time.
TEST_F(Coherence, AReaderThatRunsAllAlongNeverGoesBack) {
  constexpr std::string_view kReader = R"(
import os, sys, time
top = sys.argv[1]
newest = {}
rounds = 0
while not os.path.exists(os.path.join(top, "stop")):
    rounds += 1
    for name in ("r0", "r1", "r2"):
        try:
            with open(os.path.join(top, name), "rb") as file:
                data = file.read()
        except FileNotFoundError:
            continue
        assert len(data) % 8 == 0 and data == data[:8] * (len(data) // 8), (name, data[:8], data[-8:], len(data))
        version = int(data[:8])
        assert version >= newest.get(name, 0), (name, version, newest)
        newest[name] = version
    with open(os.path.join(top, "big"), "rb") as file:  # with read-ahead, while it is truncated
        while file.read(1 << 20):
            pass
    if rounds == 2:
        open(os.path.join(top, "reading"), "w").close()
print(rounds)
)";
  fs::create_directories(host("race"));
  write_host(host("race/reader.py"), kReader);
  write_host(host("race/big"), std::string(4U << 20U, 'x'));
  Outcome reader;
  std::atomic<bool> ended = false;
  std::jthread running([&] {
    reader = sandbox->exec({"timeout", "600", "python3", host("race/reader.py").string(), host("race").string()});
    ended = true;
  });
  std::mt19937 random(7);
  const auto began = std::chrono::steady_clock::now();
  const auto until = began + std::chrono::seconds(full() ? 120 : 12);
  const auto going_on = [&] {  // however slow the reader is to begin
    const auto now = std::chrono::steady_clock::now();
    return now < until || (now < began + std::chrono::seconds(300) && !fs::exists(host("race/reading")));
  };
  int version = 10'000'000;
  while (!ended && going_on()) {
    const auto name = "race/r" + std::to_string(random() % 3);
    const auto text = std::to_string(++version);
    std::string data;
    for (std::size_t i = 0; i <= random() % 3000; ++i) data += text;
    write_host(host("race/new"), data);
    fs::rename(host("race/new"), host(name));
    if (random() % 8 == 0) fs::remove(host(name));
    fs::resize_file(host("race/big"), random() % (4U << 20U));
    if (random() % 4 == 0) fs::resize_file(host("race/big"), 4U << 20U);
    if (random() % 16 == 0) wait_a_little();
  }
  write_host(host("race/stop"), "");
  running.join();
  EXPECT_EQ(reader.status, 0) << reader.out << reader.err;
  EXPECT_GT(std::atoi(reader.out.c_str()), 1) << reader.out;
}

// What the guest knew to be missing and then made itself is not news from the host.
TEST_F(Coherence, AFolderThatTheSandboxMakesStaysTheWorkingDirectory) {
  Outcome worker;
  std::jthread running([&] {
    worker = sandbox->shell(
        "stat made 2>/dev/null; mkdir made; cd made; touch working; until [ -e go ]; do sleep 0.1; done; /bin/pwd");
  });
  ASSERT_TRUE(eventually([&] { return fs::exists(host("made/working")); }, 60));
  EXPECT_EQ(sandbox->shell("ls made").out, "working\n");  // it starts after all notifications so far
  write_host(host("made/go"), "");
  running.join();
  EXPECT_EQ(worker.out, host("made").string() + "\n") << worker.err;
}

// fs.watch is inotify.
TEST_F(Coherence, ProgramsThatWatchAreToldOfHostEdits) {
  constexpr std::string_view kWatcher = R"(
const fs = require("fs"), names = new Set();
fs.watch(".", (kind, name) => {
  names.add(name);
  if (names.has("old") && names.has("new")) { console.log(fs.readFileSync("old", "utf8")); process.exit(0); }
});
fs.writeFileSync("../watching", "");
setTimeout(() => { console.log([...names]); process.exit(1); }, 100000);
)";
  fs::create_directory(host("watched"));
  write_host(host("watched/old"), "before");
  write_host(host("watcher.js"), kWatcher);
  Outcome watcher;
  std::jthread running([&] { watcher = sandbox->shell("cd watched; node ../watcher.js"); });
  ASSERT_TRUE(eventually([&] { return fs::exists(host("watching")); }, 60));
  write_host(host("watched/old"), "after");
  write_host(host("watched/new"), "");
  struct stat edited {};
  ASSERT_EQ(::stat(host("watched/old").c_str(), &edited), 0);
  running.join();
  EXPECT_EQ(watcher.status, 0) << watcher.out << watcher.err;
  EXPECT_EQ(watcher.out, "after\n");
  struct stat now {};
  ASSERT_EQ(::stat(host("watched/old").c_str(), &now), 0);
  EXPECT_EQ(now.st_ctim.tv_nsec, edited.st_ctim.tv_nsec);  // waking the watcher has left no trace
  EXPECT_EQ(now.st_mtim.tv_nsec, edited.st_mtim.tv_nsec);
}

TEST_F(Coherence, ACommandThatWaitsForAHostEditGetsIt) {
  write_host(host("log"), "one\n");
  Outcome follower;
  std::jthread running([&] {
    follower = sandbox->shell("touch ready; timeout 100 tail -n +1 -f " + host("log").string() + " | sed /three/q");
  });
  ASSERT_TRUE(eventually([&] { return fs::exists(host("ready")); }, 60));
  write_host(host("log"), "two\n", O_APPEND);
  write_host(host("log"), "three\n", O_APPEND);
  running.join();
  EXPECT_EQ(follower.out, "one\ntwo\nthree\n") << follower.err;
}

}  // namespace
}  // namespace sbx::test
