// Credentials as a sandbox has the use of them: servers on the host's loopback see the real values, the sandbox sees
// what stands for them, and nothing of the sandbox that is on the host has them. And the host's SSH agent, which signs.
#include <fcntl.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <random>

#include "base/random.h"
#include "instance.h"
#include "processes.h"

namespace sbx::test {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

bool holds(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

// Empty for what cannot be read: a process may end meanwhile.
std::string contents(const fs::path& path) { return read_file(path).value_or(""); }

std::string first_line(const std::string& text) { return text.substr(0, text.find('\n')); }

// credentials_server.py with a certificate of its own.
class Service {
 public:
  Service() : folder_(TemporaryFolder::make("sbx-service").value()) {
    const auto made = run(Command({"openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
                                   "-nodes", "-days", "2", "-subj", "/CN=localhost", "-addext",
                                   "subjectAltName=DNS:localhost,DNS:console.anthropic.com,DNS:api.anthropic.com",
                                   "-keyout", (folder() / "key.pem").string(), "-out", certificate().string()}));
    EXPECT_EQ(made.status, 0) << made.err;
    fs::create_directory(folder() / "git");
    const auto out = open_file(folder() / "port", O_CREAT | O_WRONLY).value();
    const auto err = open_file(folder() / "errors", O_CREAT | O_WRONLY).value();
    auto started = Command({"python3", SBX_TESTS "/credentials_server.py", certificate().string(),
                            (folder() / "key.pem").string(), (folder() / "log").string(), (folder() / "git").string()})
                       .stdout_to(out.get())
                       .stderr_to(err.get())
                       .die_with_parent()
                       .start();
    EXPECT_TRUE(started) << started.error().describe();
    if (started) process_ = std::move(*started);
    EXPECT_TRUE(eventually([&] { return contents(folder() / "port").ends_with('\n'); })) << "the service never listens";
    std::ifstream(folder() / "port") >> port_ >> plain_port_;
  }
  const fs::path& folder() const { return folder_.path(); }
  fs::path certificate() const { return folder() / "certificate.pem"; }
  std::string rule() const { return "localhost:" + port_; }
  std::string host() const { return "host.docker.internal:" + port_; }
  std::string plain_rule() const { return "localhost:" + plain_port_; }
  std::string proxy() const { return "http://127.0.0.1:" + plain_port_; }
  std::string plain_host() const { return "host.docker.internal:" + plain_port_; }
  // What it was sent, as JSON lines, and what went wrong.
  std::string seen() const { return contents(folder() / "log") + contents(folder() / "errors"); }

 private:
  TemporaryFolder folder_;
  Subprocess process_;
  std::string port_, plain_port_;
};

class Variable {
 public:
  Variable(const char* name, const std::string& value) : name_(name) {
    if (const char* now = std::getenv(name)) before_ = now;
    ::setenv(name, value.c_str(), 1);
  }
  ~Variable() {
    if (before_)
      ::setenv(name_, before_->c_str(), 1);
    else
      ::unsetenv(name_);
  }
  Variable(const Variable&) = delete;
  Variable& operator=(const Variable&) = delete;

 private:
  const char* name_;
  std::optional<std::string> before_;
};

// The instance's daemon anew, with an environment in which the service's certificate counts and secrets are kept in
// files; and again as it was at the end.
class Daemon {
 public:
  explicit Daemon(const Service& service)
      : certificate_("SSL_CERT_FILE", service.certificate().string()), store_("SBX_SECRET_STORE", "file") {
    EXPECT_EQ(sbx({"daemon", "stop"}).status, 0);
  }
  ~Daemon() {
    (void)sbx({"secret", "rm", "--all", "-f"});
    (void)sbx({"daemon", "stop"});
  }

 private:
  Variable certificate_, store_;
};

std::string fresh_value() {
  std::random_device random;
  std::string value = "real-";
  while (value.size() < 45) value += "abcdefghijklmnopqrstuvwxyz0123456789"[random() % 36];
  return value;
}

// Which of the texts a file has; read in pieces that overlap, since disks and memory images are large.
std::vector<std::string> found_in(const fs::path& path, const std::vector<std::string>& texts) {
  constexpr std::size_t kPiece = 8U << 20U;
  constexpr std::size_t kOverlap = 256;
  std::ifstream file(path, std::ios::binary);
  std::string piece, kept;
  std::vector<std::string> found;
  while (file) {
    piece = kept;
    piece.resize(kept.size() + kPiece);
    file.read(piece.data() + kept.size(), kPiece);
    piece.resize(kept.size() + static_cast<std::size_t>(file.gcount()));
    for (const auto& text : texts) {
      if (holds(piece, text) && std::ranges::find(found, text) == found.end()) found.push_back(text);
    }
    kept = piece.substr(piece.size() - std::min(piece.size(), kOverlap));
  }
  return found;
}

// Everything of the instance but what was made before any sandbox.
std::vector<fs::path> state_files() {
  std::vector<fs::path> files;
  std::error_code error;
  for (int i = 0; i == 0 || (error && i < 100); ++i) {  // again, if a folder went meanwhile
    files.clear();
    for (fs::recursive_directory_iterator entry(home(), error), end; entry != end; entry.increment(error)) {
      const auto name = entry->path().filename();
      if (entry.depth() == 0 && (name == "images" || name == "templates")) entry.disable_recursion_pending();
      std::error_code gone;
      if (fs::symlink_status(entry->path(), gone).type() == fs::file_type::regular) files.push_back(entry->path());
    }
  }
  return files;
}

using Finding = std::pair<std::string, std::string>;  // a text, and where it is

// In the instance's files. Memory images are compressed; what is searched is what was in memory.
std::vector<Finding> search_files(const std::vector<std::string>& texts) {
  const auto folder = TemporaryFolder::make("sbx-memory").value();
  std::vector<Finding> found;
  for (auto file : state_files()) {
    const std::string name = file.string();
    if (file.filename() == "memory.img") {
      const auto plain = open_file(folder.path() / "memory", O_CREAT | O_WRONLY | O_TRUNC).value();
      auto expanded = Command({"zstd", "-dcq", name}).stdout_to(plain.get()).start();
      EXPECT_TRUE(expanded && expanded->wait()->success()) << name;
      file = folder.path() / "memory";
    }
    for (const auto& text : found_in(file, texts)) found.emplace_back(text, name);
  }
  return found;
}

// In the arguments and the environment of every process that we may look at.
std::vector<Finding> search_processes(const std::vector<std::string>& texts) {
  std::vector<Finding> found;
  for (const auto& entry : fs::directory_iterator("/proc")) {
    if (entry.path().filename().string().find_first_not_of("0123456789") != std::string::npos) continue;
    for (const char* file : {"cmdline", "environ"}) {
      const auto text = contents(entry.path() / file);
      for (const auto& one : texts) {
        if (holds(text, one)) found.emplace_back(one, (entry.path() / file).string());
      }
    }
  }
  return found;
}

bool is_found(const std::vector<Finding>& findings, const std::string& text, const std::string& where) {
  return std::ranges::any_of(findings,
                             [&](const Finding& one) { return one.first == text && one.second.ends_with(where); });
}

void expect_only_markers(const std::vector<Finding>& findings) {
  for (const auto& [text, where] : findings) EXPECT_TRUE(text.starts_with("marker-")) << where << " has a value";
}

TEST(Credentials, AreUsedByTheSandboxAndNeverSeenByIt) {
  const Service service;
  const Daemon daemon(service);
  const std::string token = fresh_value();
  const std::string password = fresh_value();
  const auto set = sbx({"secret", "set-custom", "--host", service.rule(), "--env", "API_TOKEN"}, token);
  ASSERT_EQ(set.status, 0) << set.err;
  ASSERT_EQ(sbx({"secret", "set", "xai", "--command", "exit 4", "--no-verify"}).status, 0);
  const Sandbox sandbox({"--allow-network", service.rule()});
  EXPECT_TRUE(eventually([&] { return sandbox.inspected()["gateway"]["state"] == "configured"; }));
  const json shown = sandbox.inspected();
  ASSERT_EQ(shown["warnings"].size(), 1U) << shown;
  EXPECT_TRUE(holds(shown["warnings"][0], "xai")) << "it could not be fetched, and the sandbox starts without it";
  EXPECT_EQ(shown["network_policy"], (json{{"scope", "sandbox"}, {"preset", "balanced"}}));

  // Set before it ran: its environment has the placeholder, the service gets the value, an echo of it is taken back.
  const auto echoed =
      sandbox.shell("echo $API_TOKEN; curl -sS -m 60 -H \"X-Token: $API_TOKEN\" https://" + service.host() + "/echo");
  const std::string placeholder = first_line(echoed.out);
  EXPECT_TRUE(placeholder.starts_with("sbx-cs-")) << echoed.out << echoed.err;
  EXPECT_TRUE(holds(service.seen(), "\"token\": \"" + token + "\"")) << service.seen();
  EXPECT_EQ(echoed.out,
            placeholder + "\n{\"authorization\": \"\", \"token\": \"" + std::string(token.size(), '*') + "\"}")
      << echoed.err;

  // Set while it runs: the password of a git remote.
  const auto added = sbx({"secret", "set-custom", "--sandbox", sandbox.name(), "--host", service.rule(), "--env",
                          "GIT_PASSWORD", "--placeholder", "stands-for-it"},
                         password);
  ASSERT_EQ(added.status, 0) << added.err;
  const auto made = run(Command({"git", "init", "-q", "--bare", (service.folder() / "git/project.git").string()}));
  ASSERT_EQ(made.status, 0) << made.err;
  const auto remote = "https://me:stands-for-it@" + service.host() + "/git/project.git";
  const auto pushed = sandbox.shell(
      "set -e; cd; git init -q p; cd p; git config user.email me@example.com; git config user.name me; "
      "echo text > file; git add file; git commit -qm first; git push -q " +
      remote + " HEAD:main; git clone -q -b main " + remote + " ../clone; cat ../clone/file");
  EXPECT_EQ(pushed.out, "text\n") << pushed.err << service.seen();
  EXPECT_TRUE(holds(service.seen(), base64("me:" + password))) << service.seen();

  // Root in the sandbox looks everywhere for anything that is like a value, and for the markers, which it must find.
  const auto searched = sandbox.root(
      "printf 'marker-%s' of-memory > /dev/shm/m; printf 'marker-%s' of-disk > /root/m; sync; "
      "grep -rlE 'real-[a-z0-9]{10}|bWU6cmVhbC|marker-of-' "  // the middle one is base64 of "me:real-"
      "/proc/[0-9]*/environ /dev/shm /home /root /run /tmp /var/log /etc 2>/dev/null | sort");
  EXPECT_EQ(searched.out, "/dev/shm/m\n/root/m\n") << "the markers, and nothing that has a value";

  // On the host: the same search finds markers wherever it is to find no value.
  (void)sandbox.shell("curl -sS -m 60 http://marker-of-store.invalid/");
  std::vector<std::string> texts = {token,
                                    password,
                                    base64("me:" + password),
                                    "marker-of-memory",
                                    "marker-of-disk",
                                    "marker-of-store",
                                    "marker-of-process"};
  {
    auto marked =
        Command({"python3", "-c", "import time; time.sleep(1000)", "marker-of-process"}).die_with_parent().start();
    ASSERT_TRUE(marked) << marked.error().describe();
    const std::string where = std::to_string(marked->pid()) + "/cmdline";
    std::vector<Finding> found;
    EXPECT_TRUE(eventually([&] {
      found = search_processes(texts);
      return is_found(found, "marker-of-process", where);
    })) << "processes were not searched";
    expect_only_markers(found);
  }
  EXPECT_EQ(sbx({"stop", sandbox.name()}).status, 0);
  EXPECT_TRUE(holds(sbx({"policy", "log", sandbox.name(), "--json"}).out, "marker-of-store"));
  const auto found = search_files(texts);
  expect_only_markers(found);
  EXPECT_TRUE(is_found(found, "marker-of-memory", "memory.img")) << "memory was not searched";
  EXPECT_TRUE(is_found(found, "marker-of-disk", "disk.qcow2")) << "the disk was not searched";
  const bool in_store = is_found(found, "marker-of-store", "store.db") || is_found(found, "marker-of-store", "-wal");
  EXPECT_TRUE(in_store) << "the store was not searched";
}

// Whoever has logged in, whatever ends the gateway. The service is played by ours, behind the user's upstream proxy.
TEST(Credentials, OfALoginInTheSandboxOutliveItsGatewayAndGoWithTheSandbox) {
  const Service service;
  const Variable proxy("HTTPS_PROXY", service.proxy());
  const Daemon daemon(service);
  const auto count = [&](const std::string& text) {
    const auto seen = service.seen();
    std::size_t found = 0;
    for (auto at = seen.find(text); at != std::string::npos; at = seen.find(text, at + 1)) ++found;
    return found;
  };
  std::string access, refresh;
  {
    const Sandbox sandbox({"--allow-network", "console.anthropic.com:443,api.anthropic.com:443"});
    const auto login = sandbox.shell("curl -sS -m 60 -d code=1 https://console.anthropic.com/v1/oauth/token");
    EXPECT_EQ(login.out,
              R"({"access_token":"sk-ant-oat01-proxy-managed","refresh_token":"sk-ant-ort01-proxy-managed"})")
        << login.err << service.seen();
    const auto seen = service.seen();
    const auto given = seen.find("{\"given\": ");
    ASSERT_NE(given, std::string::npos) << seen;
    const json tokens = json::parse(seen.substr(given, seen.find('\n', given) - given))["given"];
    access = tokens["access_token"];
    refresh = tokens["refresh_token"];
    const auto listed = [] { return sbx_json({"secret", "ls", "--json"})["secrets"]; };
    ASSERT_TRUE(eventually([&] { return listed().size() == 1U; })) << "the daemon was not told";
    EXPECT_EQ(listed()[0]["type"], "oauth");
    EXPECT_EQ(listed()[0]["scope"], sandbox.name());

    const std::string ask =
        "curl -sS -m 60 --retry 5 --retry-all-errors -H 'Authorization: Bearer sk-ant-oat01-proxy-managed' "
        "https://api.anthropic.com/echo";
    const std::string used = "\"authorization\": \"Bearer " + access;
    const auto gateway = find_in_tree(sandbox.inspected()["keeper_pid"], "sbx-gateway");
    ASSERT_TRUE(kill_now(gateway));
    const auto after_kill = sandbox.shell(ask);
    const auto asked = count(used);
    EXPECT_GE(asked, 1U) << after_kill.out << after_kill.err << service.seen();
    EXPECT_FALSE(holds(after_kill.out, access));
    EXPECT_EQ(sbx({"stop", sandbox.name()}).status, 0);
    expect_only_markers(search_files({access, refresh}));
    const auto after_start = sandbox.shell(ask);
    EXPECT_GT(count(used), asked) << after_start.out << after_start.err;
    const auto searched = sandbox.root("grep -rlE 'real-[a-z0-9]{10}' /dev/shm /home /root /run /tmp /var/log; true");
    EXPECT_EQ(searched.out, "");
    expect_only_markers(search_processes({access, refresh}));
  }
  EXPECT_EQ(sbx_json({"secret", "ls", "--json"})["secrets"].size(), 0U) << "it goes with the sandbox";
  expect_only_markers(search_files({access, refresh}));
}

// What the step of a build fetched is in the image, which goes to a registry and comes back. Images are FROM scratch
// with the guest's busybox, and have no authorities of their own.
TEST(Credentials, LetDockerBuildThroughTheGatewayAndPushToARegistryAndPullFromIt) {
  const Service service;
  const Daemon daemon(service);
  const std::string password = fresh_value();
  const auto set = sbx({"secret", "set-custom", "--host", service.rule(), "--env", "REGISTRY_PASSWORD"}, password);
  ASSERT_EQ(set.status, 0) << set.err;
  const Sandbox sandbox({"--allow-network", service.rule() + "," + service.plain_rule()});
  const std::string image = service.host() + "/box";
  const std::string echo = "wget -qO- http://" + service.plain_host() + "/echo";
  ASSERT_TRUE(write_file_atomically(sandbox.workspace() / "Dockerfile",
                                    "FROM scratch\nCOPY busybox /bin/busybox\nENTRYPOINT [\"/bin/busybox\"]\n"
                                    "RUN [\"/bin/busybox\", \"sh\", \"-c\", \"" +
                                        echo +
                                        " > /said && md5sum < $SSL_CERT_FILE >> /said && md5sum < "
                                        "$NODE_EXTRA_CA_CERTS >> /said\"]\n",
                                    0644));
  const auto built = sandbox.shell("cp /bin/busybox . && docker build -q -t " + image + " .");
  ASSERT_EQ(built.status, 0) << built.err << service.seen();

  // By a login whose password is the placeholder. Then from a container of the image that came back.
  const auto pulled = sandbox.shell(
      "set -e; md5sum < $SSL_CERT_FILE; md5sum < $NODE_EXTRA_CA_CERTS; "
      "printf %s \"$REGISTRY_PASSWORD\" | docker login -u me --password-stdin " +
      service.host() + " >&2; docker push -q " + image + " >&2; docker rmi " + image + " >&2; docker run --rm " +
      image + " sh -c 'cat /said; " + echo + "'");
  const std::string said = R"({"authorization": "", "token": ""})";
  const std::string authorities = pulled.out.substr(0, pulled.out.find('{'));
  EXPECT_EQ(std::ranges::count(authorities, '\n'), 2) << pulled.out;
  EXPECT_EQ(pulled.out, authorities + said + authorities + said) << pulled.err << service.seen();
  EXPECT_TRUE(holds(service.seen(), base64("me:" + password))) << service.seen();
  const auto kept = sandbox.shell("cat ~/.docker/config.json");
  EXPECT_TRUE(holds(kept.out, service.host())) << kept.out;
  EXPECT_FALSE(holds(kept.out, base64("me:" + password))) << kept.out;
  const auto denied = sandbox.shell("docker pull -q denied.invalid/box");
  EXPECT_NE(denied.status, 0);
  EXPECT_TRUE(holds(denied.err, "403") || holds(denied.err, "denied")) << denied.err;
  if (!full()) return;

  // curl and what it links: the step verifies the gateway's certificate.
  const auto verified = sandbox.shell(
      "set -e; mkdir c; for f in /usr/bin/curl $(ldd /usr/bin/curl | grep -o '/[^ ]*'); do "
      "mkdir -p c/$(dirname $f); cp -L $f c/$f; done; printf 'FROM scratch\\nCOPY c /\\n"
      "RUN [\"/usr/bin/curl\", \"-sSf\", \"-m\", \"60\", \"-o\", \"/said\", \"https://" +
      service.host() + "/echo?verified\"]\\n' > Dockerfile; docker build -q .");
  EXPECT_EQ(verified.status, 0) << verified.err;
  EXPECT_TRUE(holds(service.seen(), "/echo?verified")) << service.seen();
}

// A real ssh-agent with one key.
class HostAgent {
 public:
  explicit HostAgent(const std::string& comment) : folder_(TemporaryFolder::make("sbx-agent").value()) {
    auto started = Command({"ssh-agent", "-D", "-a", socket()}).stdout_to(null_.get()).die_with_parent().start();
    EXPECT_TRUE(started) << started.error().describe();
    if (started) process_ = std::move(*started);
    EXPECT_TRUE(eventually([&] { return fs::exists(socket()); })) << "ssh-agent never listens";
    const auto made =
        run(Command({"ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", key().string()}));
    EXPECT_EQ(made.status, 0) << made.err;
    const Variable here("SSH_AUTH_SOCK", socket());
    const auto added = run(Command({"ssh-add", "-q", key().string()}));
    EXPECT_EQ(added.status, 0) << added.err;
  }
  std::string socket() const { return (folder_.path() / "agent.sock").string(); }
  fs::path key() const { return folder_.path() / "key"; }
  std::string public_key() const { return contents(key().string() + ".pub"); }
  // `ssh-add -l`.
  std::string keys() const {
    const Variable here("SSH_AUTH_SOCK", socket());
    return run(Command({"ssh-add", "-l"})).out;
  }

 private:
  TemporaryFolder folder_;
  UniqueFd null_ = open_file("/dev/null", O_WRONLY).value();
  Subprocess process_;
};

// Every kind of request that is none, and lengths that lie: each on a connection of its own, answered with failure or
// with nothing. Prints what was answered otherwise.
constexpr const char* kAskTheAgentForMore = R"(python3 - <<'END'
import os, socket, struct
def ask(raw):
    s = socket.socket(socket.AF_UNIX); s.settimeout(60); s.connect('/run/ssh-agent.sock')
    s.sendall(raw); s.shutdown(socket.SHUT_WR)
    said = b''
    while piece := s.recv(65536): said += piece
    return said
text = lambda b: struct.pack('>I', len(b)) + b
failure = text(b'\x05')
key = text(b'ssh-ed25519') + text(b'k' * 32) + text(b's' * 64) + text(b'comment')
for kind in [0, 1, 3, 7, 8, 9, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 255]:
    for body in [b'', text(b'password'), key, text(b'session-bind@openssh.com') + key]:
        if (said := ask(text(bytes([kind]) + body))) != failure: print(kind, body, said)
for raw in [b'\0\0\0\0', b'\xff\xff\xff\xff' + b'x' * 1000, struct.pack('>I', 262145) + b'\x0b',
            text(b'\x0b\0'), text(b'\x0d' + b'\xff\xff\xff\xff' + b'k')]:
    if (said := ask(raw)) != failure: print(raw[:20], said)
try:
    ask(b'\xff\xff\xff\xff' + b'x' * 10000000); print('a flood is read to its end')
except OSError: pass
if ask(struct.pack('>I', 100) + b'\x0b'): print('an answer to half a message')
print('asked')
END)";

TEST(SshAgent, SignsForASandboxThatItIsForwardedToAndDoesNothingElse) {
  const HostAgent agent("first-key");
  const Variable here("SSH_AUTH_SOCK", agent.socket());
  const Sandbox sandbox({"--ssh-agent"});
  EXPECT_EQ(sandbox.inspected()["ssh_agent"], agent.socket());
  EXPECT_EQ(sandbox.shell("ssh-add -l").out, agent.keys());

  // A signature by the host's key, which the sandbox has only the public half of.
  ASSERT_TRUE(write_file_atomically(sandbox.workspace() / "key.pub", agent.public_key(), 0644));
  ASSERT_TRUE(write_file_atomically(sandbox.workspace() / "text", "signed in the sandbox", 0644));
  const auto signing = sandbox.shell("ssh-keygen -Y sign -f key.pub -n test text");
  EXPECT_EQ(signing.status, 0) << signing.err;
  ASSERT_TRUE(write_file_atomically(sandbox.workspace() / "signers", "me " + agent.public_key(), 0644));
  const auto verified = run(Command({"ssh-keygen", "-Y", "verify", "-f", (sandbox.workspace() / "signers").string(),
                                     "-I", "me", "-n", "test", "-s", (sandbox.workspace() / "text.sig").string()}),
                            "signed in the sandbox");
  EXPECT_EQ(verified.status, 0) << verified.out << verified.err;
  const std::string fingerprint = agent.keys().substr(4, 50);
  ASSERT_TRUE(fingerprint.starts_with("SHA256:")) << agent.keys();
  json line;
  EXPECT_TRUE(eventually([&] {
    const auto log = sbx({"policy", "log", sandbox.name(), "--json"});
    const json entries = json::parse(log.out, nullptr, false);
    for (const auto& entry : entries.value("allowed_hosts", json::array())) {
      if (entry.value("proxy_type", "") == "ssh-agent") line = entry;
    }
    return !line.is_null();
  })) << sbx({"policy", "log", sandbox.name()}).out;
  EXPECT_EQ(line.value("host", ""), fingerprint) << line;
  EXPECT_TRUE(holds(line.value("reason", ""), "first-key")) << line;
  EXPECT_EQ(line.value("count_since", 0), 1) << line;

  // Root in the sandbox wants more, and gets none of it.
  const auto more = sandbox.root(kAskTheAgentForMore);
  EXPECT_EQ(more.out, "asked\n") << more.err;
  const std::string before = agent.keys();
  EXPECT_NE(sandbox.root("SSH_AUTH_SOCK=/run/ssh-agent.sock ssh-add -D").status, 0);
  EXPECT_EQ(agent.keys(), before) << "neither removed nor locked";

  // The agent of another login, while the sandbox is stopped and while it runs.
  EXPECT_EQ(sbx({"stop", sandbox.name()}).status, 0);
  const HostAgent other("second-key");
  const Variable there("SSH_AUTH_SOCK", other.socket());
  EXPECT_EQ(sandbox.shell("ssh-add -l").out, other.keys()) << "after stop and start";
  const Variable back("SSH_AUTH_SOCK", agent.socket());
  EXPECT_EQ(sandbox.shell("ssh-add -l").out, agent.keys());
}

TEST(SshAgent, IsForwardedOnlyWhenThatWasAskedForAndThereIsOne) {
  const HostAgent agent("a-key");
  {
    const Variable here("SSH_AUTH_SOCK", agent.socket());
    const Sandbox sandbox;
    EXPECT_EQ(sandbox.shell("echo \"[$SSH_AUTH_SOCK]\"; ls /run/*agent*").out, "[]\n");
    EXPECT_FALSE(sandbox.inspected().contains("ssh_agent"));
  }
  for (const std::string socket : {"", "/nowhere/agent.sock", "/dev/null"}) {
    const Variable here("SSH_AUTH_SOCK", socket);
    const auto created = sbx({"create", "--ssh-agent", "shell"});
    EXPECT_NE(created.status, 0);
    EXPECT_TRUE(holds(created.err, "ssh-agent")) << created.err;
  }
}

}  // namespace
}  // namespace sbx::test
