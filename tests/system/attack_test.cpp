// Guests that attack the host: programs of tests/attack run as root in a sandbox and speak to its three ports
// themselves. What they may lose is their own sandbox. Everything here runs in a network without uplink, where whatever
// the gateway sent would be seen and would reach nobody.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <fstream>
#include <set>
#include <sstream>
#include <thread>

#include "instance.h"
#include "processes.h"
#include "volume.h"

namespace sbx::test {
namespace {

namespace fs = std::filesystem;

bool holds(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

std::set<std::string> lines_of(const std::string& text) {
  std::set<std::string> lines;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) lines.insert(line);
  return lines;
}

std::size_t descriptors_of(pid_t pid) {
  std::error_code error;
  std::size_t count = 0;
  for (fs::directory_iterator it("/proc/" + std::to_string(pid) + "/fd", error), end; !error && it != end;
       it.increment(error)) {
    ++count;
  }
  return count;
}

class Attack : public ::testing::Test {
 protected:
  void SetUp() override {
    volume_ = Volume::tmpfs("2g");
    if (!volume_) GTEST_SKIP() << "needs root and mount(2)";
    int ends[2];
    ASSERT_EQ(::pipe2(ends, O_CLOEXEC), 0);
    const UniqueFd read_end(ends[0]);
    network_ends_with_.reset(ends[1]);
    Command network({"/usr/bin/unshare", "--net", "/usr/bin/python3", std::string(SBX_TESTS) + "/no_uplink.py",
                     (folder_.path() / "sent").string()});
    network.add(command_line({"ls"})).stdin_from(read_end.get()).die_with_parent();
    auto started = network.start();
    ASSERT_TRUE(started) << started.error().describe();
    network_ = std::move(*started);
    ASSERT_TRUE(eventually([&] { return sent().contains("ready"); })) << "the daemon does not start without a network";
  }
  void TearDown() override {
    if (volume_) (void)sbx({"daemon", "stop"});
  }

  // Destinations that anything was sent to, but for name servers.
  std::set<std::string> sent() const { return lines_of(read_file(folder_.path() / "sent").value_or("")); }
  std::set<std::string> sent_beyond_names() const {
    auto lines = sent();
    std::erase_if(lines, [](const std::string& line) {
      return line == "ready" || (line.starts_with("udp ") && line.ends_with(" 53")) || line.starts_with("dns ");
    });
    return lines;
  }

  // The programs of tests/attack in the sandbox at /root/attack.
  static void arm(const Sandbox& sandbox) {
    for (const auto& entry : fs::directory_iterator(fs::path(SBX_TESTS) / "../attack")) {
      if (entry.path().extension() == ".py") fs::copy(entry.path(), sandbox.workspace());
    }
    const auto armed = sandbox.root("mkdir /root/attack && cp *.py /root/attack");
    ASSERT_EQ(armed.status, 0) << armed.err;
  }

  TemporaryFolder folder_ = TemporaryFolder::make("sbx-attack").value();
  std::unique_ptr<Volume> volume_;
  UniqueFd network_ends_with_;
  Subprocess network_;
};

constexpr long kMiB = 1024;  // in the KiB of /proc

// How long an attack goes on.
std::string rounds() { return full() ? "10" : "1"; }

// Uses another sandbox and the daemon for as long as it lives, and watches how large the attacked program gets.
class Bystander {
 public:
  Bystander(const Sandbox& attacker, std::string program)
      : keeper_(attacker.inspected().value("keeper_pid", 0)),
        daemon_(daemon_pid()),
        program_(std::move(program)),
        keeper_descriptors_(descriptors_of(keeper_)),
        daemon_descriptors_(descriptors_of(daemon_)) {
    EXPECT_GT(keeper_, 0);
    EXPECT_TRUE(eventually([&] { return find_in_tree(keeper_, program_) != 0; })) << program_;
    user_ = std::jthread([this](const std::stop_token& stop) {
      do {
        const auto echoed = neighbour_.exec({"echo", "alive"});
        EXPECT_EQ(echoed.out, "alive\n") << echoed.err;
        EXPECT_EQ(sbx({"ls", "-q"}).status, 0);
        ++uses_;
      } while (!stop.stop_requested());
    });
    watcher_ = std::jthread([this](const std::stop_token& stop) {
      while (!stop.stop_requested()) {
        for (const auto& process : process_tree(keeper_)) {
          if (process.name == program_) peak_ = std::max(peak_.load(), memory_kib(process.pid, "VmHWM"));
        }
        wait_a_little();
      }
    });
  }
  // After the attack: everything went on, nothing grew.
  void check(long most_kib) {
    user_.request_stop();
    watcher_.request_stop();
    user_.join();
    watcher_.join();
    EXPECT_GT(uses_, 0);
    EXPECT_GT(peak_, 0);
    EXPECT_LT(peak_, most_kib) << program_;
    std::cout << program_ << " had at most " << peak_ / kMiB << " MiB\n";
    EXPECT_EQ(daemon_pid(), daemon_) << "the daemon ended";
    EXPECT_TRUE(eventually([&] { return descriptors_of(keeper_) <= keeper_descriptors_ + 2; }))
        << descriptors_of(keeper_) << " instead of " << keeper_descriptors_;
    EXPECT_TRUE(eventually([&] { return descriptors_of(daemon_) <= daemon_descriptors_ + 2; }))
        << descriptors_of(daemon_) << " instead of " << daemon_descriptors_;
  }
  const Sandbox& neighbour() const { return neighbour_; }

 private:
  Sandbox neighbour_;
  pid_t keeper_;
  pid_t daemon_;
  std::string program_;
  std::size_t keeper_descriptors_;
  std::size_t daemon_descriptors_;
  std::atomic<int> uses_ = 0;
  std::atomic<long> peak_ = 0;
  std::jthread user_;
  std::jthread watcher_;
};

// Everything about the files below `folder` that a guest could have changed, but for the times of reading.
std::string snapshot(const fs::path& folder) {
  std::string text;
  for (const auto& entry : fs::recursive_directory_iterator(folder)) {
    struct stat status {};
    ::lstat(entry.path().c_str(), &status);
    text += entry.path().string() + " " + std::to_string(status.st_mode) + " " + std::to_string(status.st_nlink) + " " +
            std::to_string(status.st_uid) + " " + std::to_string(status.st_mtim.tv_sec) + "." +
            std::to_string(status.st_mtim.tv_nsec);
    if (entry.is_regular_file()) text += " " + read_file(entry.path()).value_or("");
    text += "\n";
  }
  return text;
}

TEST_F(Attack, ForgedMessagesToTheFileServerReachNothingOutsideOfTheWorkspaces) {
  constexpr const char* kMarker = "what-no-guest-may-see-5a83d1";
  const auto outside = folder_.path() / "outside";
  const auto workspace = folder_.path() / "ws";
  const auto kept = folder_.path() / "ro";
  for (const auto& made : {outside, workspace / "folder", kept}) fs::create_directories(made);
  for (const auto& secret : {outside / "secret", folder_.path() / "secret"})
    ASSERT_TRUE(write_file_atomically(secret, kMarker, 0600));
  ASSERT_TRUE(write_file_atomically(kept / "kept", "kept"));
  ASSERT_TRUE(write_file_atomically(workspace / "big", std::string(2U << 20U, 'b')));
  ASSERT_TRUE(write_file_atomically(workspace / "folder/secret", "inside"));
  fs::create_symlink("../outside", workspace / "link");
  const auto before = snapshot(outside) + snapshot(kept);

  const Sandbox attacker({"--auto-stop", "off"}, "", {workspace.string(), kept.string() + ":ro"});
  arm(attacker);
  Bystander bystander(attacker, "sbx-files");
  std::jthread racer([&](const std::stop_token& stop) {
    const auto a = workspace / "folder";
    const auto b = workspace / "link";
    while (!stop.stop_requested()) {
      for (int i = 0; i < 50 && fs::exists(workspace / "racing"); ++i)
        ::renameat2(AT_FDCWD, a.c_str(), AT_FDCWD, b.c_str(), RENAME_EXCHANGE);
      wait_a_little();
    }
  });
  const auto attack =
      attacker.root("cd /root/attack && python3 files_attack.py " + std::string(kMarker) + " " + rounds() + " 2>&1");
  racer.request_stop();
  racer.join();
  EXPECT_TRUE(holds(attack.out, "\ndone")) << attack.out << attack.err;
  EXPECT_FALSE(holds(attack.out, "FAILED")) << attack.out;

  EXPECT_EQ(snapshot(outside) + snapshot(kept), before);
  EXPECT_EQ(read_file(folder_.path() / "secret").value_or(""), kMarker);
  for (const auto& entry : fs::recursive_directory_iterator(workspace)) {
    struct stat status {};
    ASSERT_EQ(::lstat(entry.path().c_str(), &status), 0);
    EXPECT_FALSE(S_ISCHR(status.st_mode) || S_ISBLK(status.st_mode)) << entry.path();
    EXPECT_EQ(status.st_mode & (S_ISUID | S_ISGID), 0U) << entry.path();
    EXPECT_LT(::lgetxattr(entry.path().c_str(), "security.capability", nullptr, 0), 0) << entry.path();
  }
  // The server was replaced, and the workspaces are there again.
  Outcome again;
  EXPECT_TRUE(eventually([&] {
    again = attacker.shell("cat " + (kept / "kept").string());
    return again.out == "kept";
  })) << again.out
      << again.err;
  bystander.check(40 * kMiB);
}

TEST_F(Attack, BrokenHttp2OnTheControlPortCostsTheGuestItsOwnSession) {
  const Sandbox attacker({"--auto-stop", "off"});
  arm(attacker);
  Bystander bystander(attacker, "sbx-keeper-work");
  EXPECT_EQ(attacker.root("cd /root/attack && python3 control_attack.py /run/attack-result").status, 0);
  // Asking is part of it: the worker's requests are what some of the attacks answer.
  Outcome result;
  EXPECT_TRUE(eventually(
      [&] {
        Command asked({"/usr/bin/timeout", "--signal=KILL", "15"});
        asked.add(command_line({"exec", "-u", "root", attacker.name(), "cat", "/run/attack-result"}));
        result = run(asked);
        return holds(result.out, "\ndone");
      },
      240))
      << result.out << result.err;
  Outcome again;
  EXPECT_TRUE(eventually([&] {
    again = attacker.exec({"echo", "back"});
    return again.out == "back\n";
  })) << again.err;
  bystander.check(256 * kMiB);
}

// One line of the log for each decision, whatever the name it is about looks like.
void expect_an_honest_log(const Sandbox& sandbox) {
  const auto log = sbx_json({"policy", "log", sandbox.name(), "--json"});
  std::size_t count = 0;
  for (const char* list : {"allowed_hosts", "blocked_hosts"}) {
    for (const auto& entry : log[list]) {
      ++count;
      for (const char c : entry["host"].get<std::string>()) EXPECT_TRUE(c > 0x20 && c < 0x7f) << entry;
    }
  }
  EXPECT_GT(count, 0U);
  const auto table = sbx({"policy", "log", sandbox.name()});
  for (const auto& line : lines_of(table.out)) {
    EXPECT_FALSE(line.starts_with("FORGED") || line.starts_with("X-Forged")) << line;
    for (const char c : line) EXPECT_TRUE(c >= 0x20 && c < 0x7f) << line;
  }
}

TEST_F(Attack, AGuestThatBreaksItsGatewayReachesNothingAndForgesNothing) {
  const Sandbox attacker({"--auto-stop", "off"});
  arm(attacker);
  Bystander bystander(attacker, "sbx-gateway");
  const auto attack = attacker.root("cd /root/attack && python3 network_attack.py " + rounds() + " 2>&1");
  EXPECT_TRUE(holds(attack.out, "\ndone")) << attack.out << attack.err;
  // Another gateway is there, with the same policy.
  Outcome denied;
  EXPECT_TRUE(eventually([&] {
    denied = attacker.shell("curl -sS -m 20 http://denied.invalid/");
    return holds(denied.out, "\"code\":\"denied\"");
  })) << denied.out
      << denied.err;
  bystander.check(512 * kMiB);
  expect_an_honest_log(attacker);
  EXPECT_EQ(sent_beyond_names(), std::set<std::string>());
  for (const auto& line : sent()) {
    EXPECT_FALSE(holds(line, "tunnel") || holds(line, "denied") || holds(line, "FORGED")) << line;
  }
}

TEST_F(Attack, RootWithEveryKindOfSocketReachesOnlyWhatPolicyAllows) {
  const std::string abstract = "sbx-attack-" + std::to_string(::getpid());
  const UniqueFd listener(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path + 1, abstract.data(), abstract.size());
  const auto size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + abstract.size());
  ASSERT_EQ(::bind(listener.get(), reinterpret_cast<sockaddr*>(&address), size), 0);
  ASSERT_EQ(::listen(listener.get(), 4), 0);

  const Sandbox attacker({"--allow-network", "allowed.test:80", "--allow-network", "allowed.test:443"});
  const Sandbox neighbour;
  arm(attacker);
  // What is seen here is what is sent: the way that is open leads into the trap.
  EXPECT_EQ(attacker.shell("curl -sS -m 60 http://allowed.test/").out, "trapped");
  const std::set<std::string> allowed = {"tcp 93.184.215.14 80"};
  EXPECT_TRUE(eventually([&] { return sent().contains("dns allowed.test") && sent_beyond_names() == allowed; }));

  const auto neighbours = neighbour.root(
      "python3 -m http.server 80 >/dev/null 2>&1 & ip -4 -o addr show scope global | head -1 | "
      "sed 's/.*inet \\([0-9.]*\\).*/\\1/'");
  const auto at = neighbours.out.substr(0, neighbours.out.find('\n'));
  ASSERT_NE(at, "") << neighbours.err;
  const auto attack = attacker.root("cd /root/attack && python3 way_out_attack.py " + at + " " + abstract +
                                    (full() ? " full" : "") + " 2>&1");
  EXPECT_TRUE(holds(attack.out, "\ndone")) << attack.out << attack.err;
  EXPECT_FALSE(holds(attack.out, "REACHED")) << attack.out;
  std::cout << attack.out;
  auto reached = sent_beyond_names();
  reached.erase("tcp 93.184.215.14 80");
  reached.erase("tcp 93.184.215.14 443");  // allowed.test itself
  EXPECT_EQ(reached, std::set<std::string>());
  for (const auto& line : sent()) {
    EXPECT_FALSE(holds(line, "other.test") || holds(line, "tunnel") || holds(line, "metadata")) << line;
  }
  expect_an_honest_log(attacker);
}

// How often each of these is in the memory of a process.
std::vector<int> found_in_memory(pid_t pid, const std::vector<std::string>& needles) {
  std::vector<int> counts(needles.size());
  const auto memory = open_file("/proc/" + std::to_string(pid) + "/mem", O_RDONLY).value();
  std::ifstream maps("/proc/" + std::to_string(pid) + "/maps");
  constexpr std::size_t kPiece = 4U << 20U;
  constexpr std::size_t kOverlap = 256;
  std::string piece;
  for (std::string line; std::getline(maps, line);) {
    std::uint64_t begin = 0;
    std::uint64_t end = 0;
    char mode[5] = {};
    if (std::sscanf(line.c_str(), "%lx-%lx %4s", &begin, &end, mode) != 3 || mode[0] != 'r' || mode[1] != 'w') continue;
    for (; begin < end; begin += kPiece) {
      piece.resize(std::min<std::uint64_t>(kPiece + kOverlap, end - begin));
      const ssize_t got = ::pread(memory.get(), piece.data(), piece.size(), static_cast<off_t>(begin));
      if (got <= 0) continue;
      const std::string_view seen(piece.data(), static_cast<std::size_t>(got));
      for (std::size_t i = 0; i < needles.size(); ++i) {
        for (std::size_t at = 0; (at = seen.find(needles[i], at)) < kPiece; ++at) ++counts[i];
      }
    }
  }
  return counts;
}

// The 32 bytes of a key on P-256, out of its PEM.
std::string scalar_of(const std::string& pem) {
  static constexpr std::string_view kDigits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  const auto begin = pem.find('\n') + 1;
  std::string der;
  unsigned bits = 0;
  unsigned held = 0;
  for (const char c : pem.substr(begin, pem.find("-----END") - begin)) {
    const auto digit = kDigits.find(c);
    if (digit == std::string_view::npos) continue;
    bits = bits << 6U | static_cast<unsigned>(digit);
    held += 6;
    if (held >= 8) der.push_back(static_cast<char>(bits >> (held -= 8)));
  }
  // ECPrivateKey (RFC 5915): version 1, then an OCTET STRING of 32 bytes.
  const auto at = der.find(std::string("\x02\x01\x01\x04\x20", 5));
  return at == std::string::npos ? "" : der.substr(at + 5, 32);
}

TEST_F(Attack, NoKeyOfTheAuthorityIsInAGuestsMemoryOrOnItsDisk) {
  const Sandbox attacker({"--allow-network", "allowed.test:80"});
  const std::string marker = "planted-in-the-guest-" + std::to_string(::getpid());
  ASSERT_EQ(attacker.shell("curl -sS http://allowed.test/ >/dev/null; echo " + marker + " > ~/planted; sync").status,
            0);
  const auto authority = read_file(home() / "authority.pem").value();
  const auto scalar = scalar_of(authority);
  ASSERT_EQ(scalar.size(), 32U) << "the authority has another kind of key: search for that";
  const auto second_line = authority.find('\n', authority.find('\n') + 1) + 1;
  const std::vector<std::string> needles = {
      marker, scalar, authority.substr(second_line, 48),
      // Any key on P-256 in PEM, such as that of this sandbox's intermediate (RFC 5208, base64 of its fixed beginning).
      "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg"};
  const auto counts = found_in_memory(attacker.inspected().value("qemu_pid", 0), needles);
  EXPECT_GT(counts[0], 0) << "the search finds nothing at all";
  for (std::size_t i = 1; i < needles.size(); ++i) EXPECT_EQ(counts[i], 0) << "of needle " << i;
  const auto id = attacker.listed()["id"].get<std::string>();
  const auto disk = read_file(home() / "sandboxes" / id / "disk.qcow2", std::size_t{4} << 30U).value();
  EXPECT_TRUE(holds(disk, marker));
  for (std::size_t i = 1; i < needles.size(); ++i) EXPECT_FALSE(holds(disk, needles[i])) << "needle " << i;
}

}  // namespace
}  // namespace sbx::test
