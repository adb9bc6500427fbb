// `sbx secret` against a real daemon of its own; no VM. What a promise says must not be found is searched for.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <pty.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <optional>
#include <sstream>

#include "instance.h"

namespace sbx::test {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr const char* kValue = "sk-test-Zq83hGdWq0PvLx7-the-real-value";

class Secrets : public testing::Test {
 protected:
  Secrets() {
    for (const char* name : {"SBX_HOME", "XDG_CONFIG_HOME", "SBX_SECRET_STORE", "DBUS_SESSION_BUS_ADDRESS"}) {
      const char* value = std::getenv(name);
      before.emplace_back(name, value != nullptr ? std::optional<std::string>(value) : std::nullopt);
    }
    ::setenv("SBX_HOME", home_folder().c_str(), 1);
    ::setenv("XDG_CONFIG_HOME", (top.path() / "config").c_str(), 1);
    ::setenv("SBX_SECRET_STORE", "file", 1);
  }
  ~Secrets() override {
    (void)sbx({"daemon", "stop"});
    for (const auto& [name, value] : before) {
      if (value)
        ::setenv(name.c_str(), value->c_str(), 1);
      else
        ::unsetenv(name.c_str());
    }
  }

  fs::path home_folder() const { return top.path() / "home"; }
  fs::path store() const { return home_folder() / "secrets.enc"; }
  fs::path key() const {
    for (const auto& entry : fs::directory_iterator(top.path() / "config/sbx/keys")) return entry.path();
    return {};
  }
  static json listed(const std::vector<std::string>& flags = {}) {
    std::vector<std::string> arguments = {"secret", "ls", "--json"};
    arguments.insert(arguments.end(), flags.begin(), flags.end());
    const auto outcome = sbx(arguments);
    EXPECT_EQ(outcome.status, 0) << outcome.err;
    return json::parse(outcome.out, nullptr, false);
  }
  static pid_t daemon_pid() {
    return json::parse(sbx({"daemon", "status", "--json"}).out, nullptr, false).value("pid", 0);
  }
  void set(const std::string& service = "openai", const std::string& value = kValue) const {
    const auto outcome = sbx({"secret", "set", service}, value);
    ASSERT_EQ(outcome.status, 0) << outcome.err;
  }

  std::vector<std::pair<std::string, std::optional<std::string>>> before;
  TemporaryFolder top = TemporaryFolder::make("sbx-secrets").value();
};

std::string contents(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

// A zombie, too, which waits for this machine's init.
bool has_ended(pid_t pid) { return memory_kib(pid, "VmRSS") < 0; }

TEST_F(Secrets, AreSetFromAPipeListedMaskedAndRemoved) {
  const auto saved = sbx({"secret", "set", "openai"}, std::string(kValue) + "\n");
  EXPECT_EQ(saved.status, 0) << saved.err;
  EXPECT_EQ(saved.out, "Saved secret \"openai\" in scope \"global\"\n");
  EXPECT_NE(saved.err.find("No keychain detected"), std::string::npos) << saved.err;
  const auto second = sbx({"secret", "set", "github"}, "short");
  EXPECT_EQ(second.err.find("No keychain"), std::string::npos) << "said once";

  const auto table = sbx({"secret", "ls"});
  EXPECT_EQ(table.out,
            "SCOPE      TYPE      NAME     SECRET\n"
            "(global)   service   github   *****\n"
            "(global)   service   openai   sk-tes******...******alue\n");
  EXPECT_NE(table.err.find(store().string()), std::string::npos) << table.err;
  const json document = listed();
  ASSERT_EQ(document["secrets"].size(), 2U) << document;
  EXPECT_EQ(document["secrets"][1]["scope"], "global");
  EXPECT_EQ(document["secrets"][1]["type"], "service");
  EXPECT_EQ(document["secrets"][1]["secret"], "sk-tes******...******alue");
  EXPECT_EQ(document["custom_secrets"], json::array());
  EXPECT_EQ(document["shadowed_services"], json::array());
  EXPECT_TRUE(document.contains("env_only_count"));
  const json one = listed({"--service", "github"})["secrets"];
  EXPECT_EQ(one, (json::array({{{"scope", "global"}, {"type", "service"}, {"name", "github"}, {"secret", "*****"}}})));

  const auto unasked = sbx({"secret", "rm", "openai"});
  EXPECT_EQ(unasked.status, 1);
  EXPECT_NE(unasked.err.find("stdin is not a terminal; use --force to skip confirmation"), std::string::npos);
  const auto removed = sbx({"secret", "rm", "openai", "-f"});
  EXPECT_EQ(removed.status, 0) << removed.err;
  EXPECT_EQ(removed.out, "Deleted secret \"openai\" from scope \"global\"\n");
  EXPECT_EQ(sbx({"secret", "rm", "openai", "-f"}).status, 1);
  EXPECT_EQ(sbx({"secret", "rm", "--all", "-f"}).status, 0);
  EXPECT_EQ(sbx({"secret", "ls", "--global"}).out, "No secrets found for scope \"global\".\n");
  EXPECT_FALSE(fs::exists(store()));
}

TEST_F(Secrets, AreNotReplacedUnasked) {
  set();
  const auto again = sbx({"secret", "set", "openai"}, "other");
  EXPECT_EQ(again.status, 1);
  EXPECT_NE(again.err.find("already exists"), std::string::npos) << again.err;
  EXPECT_EQ(sbx({"secret", "set", "openai", "--force"}, "other").status, 0);
  EXPECT_EQ(listed()["secrets"][0]["secret"], "*****");
}

TEST_F(Secrets, RefuseWhatMakesNoSense) {
  const std::vector<std::vector<std::string>> kBad = {
      {"secret", "set", "nobody"},
      {"secret", "set", "mcp:thing"},
      {"secret", "set"},
      {"secret", "set", "openai", "--sandbox", "no-such-sandbox"},
      {"secret", "set", "openai", "--ref", "op://v/i/f", "--command", "true"},
      {"secret", "set", "openai", "--ref", "something"},
      {"secret", "set", "openai", "--refresh", "5m"},
      {"secret", "set", "anthropic", "--oauth"},
      {"secret", "set", "openai", "--username", "me"},
      {"secret", "set-custom", "--host", "*", "--env", "X"},
      {"secret", "set-custom", "--host", "a.example.com", "--env", "PATH"},
      {"secret", "rm"},
      {"secret", "nothing"},
  };
  for (const auto& arguments : kBad) {
    const auto outcome = sbx(arguments, "value");
    EXPECT_EQ(outcome.status, 1) << arguments.back();
    EXPECT_TRUE(outcome.err.starts_with("ERROR: ")) << outcome.err;
  }
  EXPECT_EQ(sbx({"secret", "set", "openai"}, "two\nlines").status, 1);
  EXPECT_EQ(sbx({"secret", "set", "openai"}, "").status, 1);
  EXPECT_EQ(listed()["secrets"].size(), 0U);
}

TEST_F(Secrets, CustomOnesSayTheirPlaceholder) {
  const auto saved = sbx(
      {"secret", "set-custom", "--host", "api.example.com", "--host", "**.example.com", "--env", "MY_TOKEN"}, kValue);
  ASSERT_EQ(saved.status, 0) << saved.err;
  const json row = listed()["custom_secrets"][0];
  const std::string placeholder = row["placeholder"];
  EXPECT_TRUE(placeholder.starts_with("sbx-cs-"));
  EXPECT_TRUE(saved.out.starts_with("Saved custom secret placeholder \"" + placeholder +
                                    "\" for target \"api.example.com, **.example.com\" env \"MY_TOKEN\" in scope "
                                    "\"global\"\nYou may need to update environment variable MY_TOKEN inside existing "
                                    "sandboxes"))
      << saved.out;
  const auto again = sbx({"secret", "set-custom", "--host", "a.example.com", "--env", "MY_TOKEN"}, "x");
  EXPECT_EQ(again.status, 1);
  EXPECT_NE(
      again.err.find("custom secret env \"MY_TOKEN\" already exists in scope global with placeholder " + placeholder),
      std::string::npos)
      << again.err;
  const auto table = sbx({"secret", "ls"}).out;
  EXPECT_NE(table.find("CUSTOM SECRETS\nSCOPE"), std::string::npos) << table;
  const auto warned = sbx({"secret", "set-custom", "--host", "a.example.com", "--env", "OTHER", "--value", "in-argv-x",
                           "--placeholder", "ghp_{rand:36}"});
  EXPECT_EQ(warned.status, 0) << warned.err;
  EXPECT_NE(warned.err.find("WARNING"), std::string::npos);
  EXPECT_EQ(sbx({"secret", "rm", "--env", "MY_TOKEN", "-f"}).status, 0);
  EXPECT_EQ(listed()["custom_secrets"].size(), 1U);
}

TEST_F(Secrets, AreImportedFromTheEnvironment) {
  ::setenv("GROQ_API_KEY", kValue, 1);
  const auto dry = sbx({"secret", "import", "--all", "--dry-run"});
  EXPECT_EQ(dry.out, "Would import groq from GROQ_API_KEY (sk-tes******...******alue)\n");
  EXPECT_EQ(listed()["secrets"].size(), 0U);
  EXPECT_EQ(listed()["env_only_count"], 1);
  EXPECT_EQ(sbx({"secret", "import"}).status, 1) << "nobody to ask";
  EXPECT_EQ(sbx({"secret", "import", "--all"}).out, "Imported groq from GROQ_API_KEY\n");
  EXPECT_NE(sbx({"secret", "import", "groq"}).out.find("Skipped"), std::string::npos);
  EXPECT_EQ(sbx({"secret", "import", "groq", "-f"}).status, 0);
  ::unsetenv("GROQ_API_KEY");
  EXPECT_EQ(listed()["secrets"].size(), 1U);
}

TEST_F(Secrets, ComeFromCommandsToo) {
  const auto failing = sbx({"secret", "set", "xai", "--command", "echo hint >&2; exit 4"});
  EXPECT_EQ(failing.status, 1);
  EXPECT_EQ(failing.err.find("hint\n"), std::string::npos);
  EXPECT_NE(sbx({"secret", "set", "xai", "--command", "echo hint >&2; exit 4", "--show-error"}).err.find("hint\n"),
            std::string::npos);
  EXPECT_EQ(sbx({"secret", "set", "xai", "--command", "exit 4", "--no-verify"}).status, 0);
  const auto good = sbx({"secret", "set", "groq", "--command", "echo fetched-value", "--refresh", "10m"});
  EXPECT_EQ(good.status, 0) << good.err;
  const json rows = listed({"--service", "groq"})["secrets"];
  EXPECT_EQ(rows[0]["secret"], "(from command)");
}

TEST_F(Secrets, OfRegistriesAreForTheHostUnlessSaidOtherwise) {
  const auto saved = sbx({"secret", "set", "--registry", "ghcr.io", "--username", "me", "--password-stdin"}, kValue);
  ASSERT_EQ(saved.status, 0) << saved.err;
  const json row = listed()["secrets"][0];
  EXPECT_EQ(row["scope"], "host-only");
  EXPECT_EQ(row["type"], "registry");
  EXPECT_EQ(row["username"], "me");
  EXPECT_NE(sbx({"secret", "ls"}).out.find("(host only)   registry   ghcr.io"), std::string::npos);
  EXPECT_EQ(sbx({"secret", "rm", "--registry", "ghcr.io", "-f"}).status, 0);
}

TEST_F(Secrets, AreTypedWithoutEcho) {
  int master = -1, slave = -1;
  ASSERT_EQ(::openpty(&master, &slave, nullptr, nullptr, nullptr), 0);
  const UniqueFd terminal(master);
  UniqueFd line(slave);
  auto folder = TemporaryFolder::make("sbx-prompt").value();
  auto errors = open_file(folder.path() / "err", O_CREAT | O_RDWR).value();
  auto child =
      Command(command_line({"secret", "set", "openai"})).stdin_from(line.get()).stderr_to(errors.get()).start();
  ASSERT_TRUE(child);
  ASSERT_TRUE(eventually(
      [&] { return contents(folder.path() / "err").find("Enter the value for openai: ") != std::string::npos; }));
  ASSERT_TRUE(write_all(terminal.get(), "wrong\x15" + std::string(kValue) + "X\x7f\r"));
  EXPECT_TRUE(child->wait()->success()) << contents(folder.path() / "err");
  char echoed[256];
  ::fcntl(terminal.get(), F_SETFL, O_NONBLOCK);
  EXPECT_LE(::read(terminal.get(), echoed, sizeof echoed), 0) << "something was echoed";
  EXPECT_EQ(listed()["secrets"][0]["secret"], "sk-tes******...******alue");
}

// Mappings of a process that hold `value`: the flags of each (proc_pid_smaps(5), VmFlags).
std::vector<std::string> mappings_with(pid_t pid, const std::string& value) {
  std::ifstream maps("/proc/" + std::to_string(pid) + "/smaps");
  std::ifstream memory("/proc/" + std::to_string(pid) + "/mem", std::ios::binary);
  std::vector<std::string> found;
  std::string line, range;
  unsigned long from = 0, to = 0;
  while (std::getline(maps, line)) {
    unsigned long a = 0, b = 0;
    char mode[5] = {};
    if (std::sscanf(line.c_str(), "%lx-%lx %4s", &a, &b, mode) == 3) {
      from = a, to = mode[0] == 'r' ? b : a;
      range = line;
    }
    if (!line.starts_with("VmFlags:") || to == from || range.find("[v") != std::string::npos) continue;
    std::string bytes(to - from, '\0');
    memory.clear();
    memory.seekg(static_cast<std::streamoff>(from));
    memory.read(bytes.data(), static_cast<std::streamsize>(bytes.size()));
    bytes.resize(static_cast<std::size_t>(std::max<std::streamsize>(memory.gcount(), 0)));
    if (bytes.find(value) != std::string::npos) found.push_back(range + " " + line);
  }
  return found;
}

TEST_F(Secrets, ARequestWithAMemberThatIsNotKnownStoresNothing) {
  (void)listed();  // starts the daemon
  const std::string socket = sbx_json({"daemon", "status", "--json"})["socket"];
  const std::string head = R"({"type":"service","name":"openai","for_host":"a.example.com"})";
  const std::string body = {0, 0, 0, static_cast<char>(head.size())};
  const auto put = run(Command({"/usr/bin/curl", "-s", "--unix-socket", socket, "-X", "PUT", "--data-binary", "@-",
                                "-w", " %{http_code}", "http://sbx/v1/secrets"}),
                       body + head + kValue);
  EXPECT_NE(put.out.find("for_host"), std::string::npos) << put.out << put.err;
  EXPECT_TRUE(put.out.ends_with(" 400")) << put.out;
  EXPECT_EQ(listed()["secrets"].size(), 0U);
}

TEST_F(Secrets, AreInLockedMemoryOfTheDaemonAndNowhereElse) {
  set();
  (void)listed();
  ASSERT_EQ(
      sbx({"secret", "set-custom", "--host", "a.example.com", "--env", "TOKEN"}, std::string(kValue) + "2").status, 0);
  const pid_t pid = daemon_pid();
  ASSERT_GT(pid, 0);
  // Files: the store, the key, the log, the database and its journals.
  int files = 0;
  for (const auto& entry : fs::recursive_directory_iterator(top.path())) {
    if (!entry.is_regular_file()) continue;
    ++files;
    EXPECT_EQ(contents(entry.path()).find(kValue), std::string::npos) << entry.path();
  }
  EXPECT_GE(files, 5);
  EXPECT_NE(contents(home_folder() / "log/sbxd.log").find("/v1/secrets"), std::string::npos) << "the log was looked at";
  // Process tables.
  int processes = 0;
  for (const auto& entry : fs::directory_iterator("/proc")) {
    if (entry.path().filename().string().find_first_not_of("0123456789") != std::string::npos) continue;
    if (entry.path().filename() == std::to_string(::getpid())) continue;
    ++processes;
    for (const char* file : {"cmdline", "environ"})
      EXPECT_EQ(contents(entry.path() / file).find(kValue), std::string::npos) << entry.path();
  }
  EXPECT_GT(processes, 0);
  // API answers.
  EXPECT_EQ(listed().dump().find(kValue), std::string::npos);
  // Memory: only where it is locked (lo) and left out of core dumps (dd).
  if (::geteuid() != 0) GTEST_SKIP() << "only root can read the daemon's memory: it is not dumpable";
  const auto found = mappings_with(pid, kValue);
  EXPECT_FALSE(found.empty()) << "the search itself does not work";
  for (const auto& mapping : found) {
    EXPECT_NE(mapping.find(" lo"), std::string::npos) << mapping;
    EXPECT_NE(mapping.find(" dd"), std::string::npos) << mapping;
  }
  EXPECT_FALSE(mappings_with(pid, "http request").empty());
  // After removal not even there.
  ASSERT_EQ(sbx({"secret", "rm", "--all", "-f"}).status, 0);
  EXPECT_TRUE(mappings_with(pid, kValue).empty());
}

TEST_F(Secrets, LeaveNoCoreDump) {
  set();
  const pid_t pid = daemon_pid();
  const UniqueFd process(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
  struct stat info {};
  ASSERT_EQ(::stat(("/proc/" + std::to_string(pid) + "/environ").c_str(), &info), 0);
  EXPECT_EQ(info.st_uid, 0U) << "the daemon is dumpable";
  if (::geteuid() != 0) {
    EXPECT_EQ(contents("/proc/" + std::to_string(pid) + "/environ"), "");
  }
  rlimit unlimited{RLIM_INFINITY, RLIM_INFINITY};
  ::prlimit(pid, RLIMIT_CORE, &unlimited, nullptr);
  const std::string pattern = contents("/proc/sys/kernel/core_pattern");
  // The daemon's working folder is /. Somebody else's may lie there.
  const auto last_core = [] {
    std::error_code error;
    return fs::last_write_time("/core", error);
  };
  const auto before_it = last_core();
  ASSERT_EQ(::kill(pid, SIGABRT), 0);
  ASSERT_TRUE(eventually([&] { return has_ended(pid); }));
  EXPECT_EQ(last_core(), before_it) << pattern;
  EXPECT_FALSE(fs::exists("/core." + std::to_string(pid))) << pattern;
  EXPECT_EQ(listed()["secrets"].size(), 1U) << "the next daemon has them";
}

TEST_F(Secrets, SurviveARestartAndAKilledDaemon) {
  set();
  const pid_t pid = daemon_pid();
  ASSERT_EQ(::kill(pid, SIGKILL), 0);
  ASSERT_TRUE(eventually([&] { return has_ended(pid); }));
  EXPECT_EQ(listed()["secrets"][0]["name"], "openai");
}

TEST_F(Secrets, AreRefusedNotLostWhenTheStoreOrItsKeyIsWrong) {
  set();
  ASSERT_EQ(sbx({"daemon", "stop"}).status, 0);
  const std::string good = contents(store());
  const auto refused = [&](const std::string& why) {
    const auto outcome = sbx({"secret", "ls"});
    EXPECT_EQ(outcome.status, 1);
    EXPECT_NE(outcome.err.find(why), std::string::npos) << outcome.err;
    EXPECT_EQ(sbx({"secret", "set", "github"}, "x").status, 1);
    EXPECT_NE(sbx({"diagnose"}).out.find(why), std::string::npos);
    ASSERT_EQ(sbx({"daemon", "stop"}).status, 0);
  };
  ASSERT_EQ(::chmod(key().c_str(), 0640), 0);
  refused("can be read or written by others");
  ASSERT_EQ(::chmod(key().c_str(), 0600), 0);
  const auto real_key = key();
  fs::rename(real_key, top.path() / "moved");
  fs::create_symlink(top.path() / "moved", real_key);
  refused("symbolic link");
  fs::remove(real_key);
  refused("is missing");
  fs::rename(top.path() / "moved", real_key);
  std::string bad = good;
  bad[bad.size() / 2] = static_cast<char>(bad[bad.size() / 2] ^ 1);
  ASSERT_TRUE(write_file_atomically(store(), bad));
  refused("left as it is");
  EXPECT_EQ(contents(store()), bad);
  ASSERT_TRUE(write_file_atomically(store(), good.substr(0, good.size() - 1)));
  refused("left as it is");
  ASSERT_TRUE(write_file_atomically(store(), good));
  EXPECT_EQ(listed()["secrets"][0]["name"], "openai");
}

TEST_F(Secrets, GoWithAResetUnlessPreserved) {
  set();
  ASSERT_EQ(sbx({"reset", "--force", "--preserve-secrets"}).status, 0);
  EXPECT_EQ(listed()["secrets"].size(), 1U);
  const auto outcome = sbx({"reset", "--force"});
  ASSERT_EQ(outcome.status, 0) << outcome.err;
  EXPECT_NE(outcome.out.find("1 secret(s) removed"), std::string::npos) << outcome.out;
  EXPECT_FALSE(fs::exists(store()));
  EXPECT_EQ(listed()["secrets"].size(), 0U);
}

TEST_F(Secrets, AreKeptInTheKeyringWhereThereIsOne) {
  ::unsetenv("SBX_SECRET_STORE");
  ::unsetenv("DBUS_SESSION_BUS_ADDRESS");
  const std::string program = command_line({"secret"})[0];
  // A session as a desktop has it: a bus of its own, and on it an unlocked keyring in a home of its own.
  const std::string script =
      "export HOME=" + (top.path() / "user").string() + " XDG_RUNTIME_DIR=" + (top.path() / "runtime").string() +
      " XDG_DATA_HOME=" + (top.path() / "data").string() +
      "; mkdir -p -m 700 \"$HOME\" \"$XDG_RUNTIME_DIR\" \"$XDG_DATA_HOME\"; set -e\n"
      "printf password > \"$HOME/password\"\n"
      "gnome-keyring-daemon --foreground --unlock --components=secrets < \"$HOME/password\" >/dev/null &\n"
      "keyring=$!; trap 'kill $keyring' EXIT\n"
      "for i in $(seq 600); do dbus-send --session --dest=org.freedesktop.DBus --print-reply=literal / "
      "org.freedesktop.DBus.NameHasOwner string:org.freedesktop.secrets | grep -q true && break; sleep 0.05; done\n"
      "\"$SBX\" secret set openai < \"$VALUE_FILE\"\n"
      "printf other | \"$SBX\" secret set github\n"
      "\"$SBX\" daemon stop\n"
      "\"$SBX\" secret ls --json\n"
      "\"$SBX\" secret rm github -f >&2\n"
      "\"$SBX\" daemon stop >&2\n"
      "\"$SBX\" secret ls --json >&2\n"
      "\"$SBX\" daemon stop >&2\n"
      // Another session, without a keyring, must not quietly begin a second store.
      "if env -u DBUS_SESSION_BUS_ADDRESS \"$SBX\" secret ls >&2; then exit 9; fi\n"
      "\"$SBX\" daemon stop >&2\n";
  auto folder = TemporaryFolder::make("sbx-keyring").value();
  auto out = open_file(folder.path() / "out", O_CREAT | O_RDWR).value();
  auto err = open_file(folder.path() / "err", O_CREAT | O_RDWR).value();
  ::setenv("SBX", program.c_str(), 1);
  ASSERT_TRUE(write_file_atomically(folder.path() / "value", kValue));
  ::setenv("VALUE_FILE", (folder.path() / "value").c_str(), 1);
  auto child = Command({"dbus-run-session", "--", "bash", "-c", script})
                   .stdout_to(out.get())
                   .stderr_to(err.get())
                   .die_with_parent()
                   .start();
  ASSERT_TRUE(child) << "dbus-run-session is missing (scripts/install-packages)";
  const auto status = child->wait();
  const std::string said = contents(folder.path() / "out"), messages = contents(folder.path() / "err");
  EXPECT_TRUE(status && status->success()) << status->describe() << said << messages;
  EXPECT_NE(said.find("\"kind\": \"secret-service\""), std::string::npos) << said;
  EXPECT_NE(said.find("sk-tes******...******alue"), std::string::npos) << said;
  EXPECT_NE(messages.find("there is no session bus"), std::string::npos) << messages;
  EXPECT_FALSE(fs::exists(store()));
  for (const auto& entry : fs::recursive_directory_iterator(top.path())) {
    if (entry.is_regular_file()) {
      EXPECT_EQ(contents(entry.path()).find(kValue), std::string::npos) << entry.path();
    }
  }
}

}  // namespace
}  // namespace sbx::test
