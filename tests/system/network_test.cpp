// The way out of a sandbox: guest redirect, network port, gateway, and the policy that decides. Nothing here can reach
// a stranger: what must be denied is a name under .invalid (RFC 2606) or a service of this test on the host's loopback.
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <thread>

#include "instance.h"
#include "processes.h"

namespace sbx::test {
namespace {

// Answers every connection with one small HTTP response. Ends with the object.
class Service {
 public:
  Service() : listener_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    EXPECT_EQ(::bind(listener_.get(), reinterpret_cast<sockaddr*>(&address), size), 0);
    EXPECT_EQ(::listen(listener_.get(), 16), 0);
    ::getsockname(listener_.get(), reinterpret_cast<sockaddr*>(&address), &size);
    port_ = std::to_string(ntohs(address.sin_port));
    thread_ = std::thread([fd = listener_.get()] { serve(fd); });
  }
  ~Service() {
    ::shutdown(listener_.get(), SHUT_RDWR);
    thread_.join();
  }
  const std::string& port() const { return port_; }

 private:
  static void serve(int listener) {
    for (;;) {
      const UniqueFd client(::accept4(listener, nullptr, nullptr, SOCK_CLOEXEC));
      if (!client.valid() && (errno == EINTR || errno == ECONNABORTED)) continue;
      if (!client.valid()) return;
      char request[4096];
      if (::recv(client.get(), request, sizeof request, 0) <= 0) continue;
      const std::string answer = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello";
      (void)::send(client.get(), answer.data(), answer.size(), MSG_NOSIGNAL);
    }
  }

  UniqueFd listener_;
  std::string port_;
  std::thread thread_;
};

bool holds(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

// Up to three times: others' networks and servers have their moments.
std::string again(const std::string& command) {
  return "{ " + command + " || { sleep 5; " + command + "; } || { sleep 20; " + command + "; }; }";
}

TEST(Network, PackagesOfNpmAndDebianAreInstalledThroughTheGateway) {
  const Sandbox sandbox;
  const auto npm =
      sandbox.shell("mkdir /tmp/n && cd /tmp/n && " + again("npm install is-number") + " && ls node_modules");
  EXPECT_EQ(npm.status, 0) << npm.out << npm.err;
  EXPECT_TRUE(holds(npm.out, "is-number")) << npm.out << npm.err;
  const auto apt = sandbox.root(again("apt-get update") + " && " +
                                again("apt-get install -y --no-install-recommends hello") + " && hello");
  EXPECT_EQ(apt.status, 0) << apt.out << apt.err;
  EXPECT_TRUE(holds(apt.out, "Hello, world!")) << apt.out << apt.err;
}

// With nothing said of the gateway: a container has no proxy set and no authorities of its own, and what `docker build`
// runs is one. Its image holds four links; the programs are the sandbox's, since an image of them takes dockerd many
// minutes under software emulation. The registry's host has a secret, so that its TLS is read.
TEST(Network, PackagesOfNpmAndDebianAreInstalledInContainers) {
  if (!full()) GTEST_SKIP() << "SBX_FULL=1 runs it: npm and apt in containers take minutes under software emulation";
  const Sandbox sandbox;
  auto registry = sandbox.shell("npm config get registry | sed -E 's#^https://([^/:]+).*#\\1#'").out;
  ASSERT_TRUE(registry.ends_with('\n'));
  registry.pop_back();
  const auto set = sbx({"secret", "set-custom", "--sandbox", sandbox.name(), "--host", registry, "--env", "UNUSED"},
                       "a-value-that-nobody-uses");
  ASSERT_EQ(set.status, 0) << set.err;
  const auto imported = sandbox.root("tar -C / -c bin sbin lib lib64 | docker import - base");
  ASSERT_EQ(imported.status, 0) << imported.err;
  std::string run = "docker run --rm --tmpfs /tmp:mode=1777,exec";
  for (const char* part : {"/usr", "/etc/apt", "/etc/dpkg", "/etc/group", "/etc/nsswitch.conf", "/etc/passwd",
                           "/var/cache", "/var/lib/apt", "/var/lib/dpkg"}) {
    run += std::string(" -v ") + part + ":" + part;
  }
  run += " base /bin/sh -c ";
  const auto npm = sandbox.root(run + "'cd /tmp && " + again("npm install is-number") + " && ls node_modules'");
  EXPECT_EQ(npm.status, 0) << npm.out << npm.err;
  EXPECT_TRUE(holds(npm.out, "is-number")) << npm.out << npm.err;
  const auto apt = sandbox.root(run + "'" + again("apt-get update") + " && " +
                                again("apt-get install -y --no-install-recommends hello") + " && hello'");
  EXPECT_EQ(apt.status, 0) << apt.out << apt.err;
  EXPECT_TRUE(holds(apt.out, "Hello, world!")) << apt.out << apt.err;
  const auto log = sbx_json({"policy", "log", sandbox.name(), "--json"});
  EXPECT_TRUE(std::ranges::any_of(log["allowed_hosts"],
                                  [&](const nlohmann::json& entry) {
                                    return entry["host"].get<std::string>().starts_with(registry) &&
                                           entry["proxy_type"] == "forward";
                                  }))
      << "the registry's TLS was not read: " << log;
}

TEST(Network, WhatPolicyDeniesHasOneFace) {
  const Sandbox sandbox;
  for (const std::string way : {"", "--noproxy '*' "}) {
    for (const std::string url : {"http://denied.invalid/", "https://denied.invalid/"}) {
      const auto denied = sandbox.shell("curl -sS -m 60 " + way + url);
      EXPECT_TRUE(holds(denied.out, "\"code\":\"denied\"")) << way << url << denied.out << denied.err;
      EXPECT_TRUE(holds(denied.out, "sbx policy allow network denied.invalid:")) << denied.out;
    }
  }
  // Its name leads somewhere, and back; nothing else is told of it.
  const auto named = sandbox.shell(
      "python3 - <<'END'\n"
      "import socket, struct\n"
      "address = socket.gethostbyname('denied.invalid')\n"
      "print(address[:7], socket.gethostbyaddr(address)[0])\n"
      "server = [l.split()[1] for l in open('/etc/resolv.conf') if l.startswith('nameserver')][0]\n"
      "for kind in (16, 15, 28):\n"
      "  s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(50)\n"
      "  s.sendto(struct.pack('>6H', 7, 256, 1, 0, 0, 0) + b'\\6denied\\7invalid\\0' + struct.pack('>2H', kind, 1), "
      "(server, 53))\n"
      "  answer = s.recv(4096); print(kind, answer[3] & 15, answer[7])\n"
      "END\n");
  EXPECT_EQ(named.out, "198.18. denied.invalid\n16 5 0\n15 5 0\n28 0 0\n") << named.err;
  const auto raw = sandbox.shell("exec 3<>/dev/tcp/denied.invalid/22 && head -c 1 <&3");
  EXPECT_EQ(raw.out, "");
  EXPECT_TRUE(holds(raw.err, "reset by peer") || holds(raw.err, "refused")) << raw.err;
}

TEST(Network, NothingButTcpLeavesAndThatIsSaidAtOnce) {
  const Sandbox sandbox;
  const auto refused = sandbox.root(
      "ip -6 route show default; ip -o link | cut -d' ' -f2 | grep -vE '^(lo|sbx0|dummy0|docker0|br-|veth)';"
      "timeout 120 python3 - <<'END'\n"
      "import socket, struct\n"
      "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.connect(('192.0.2.7', 53)); s.settimeout(50)\n"
      "try:\n"
      "  s.send(b'x'); s.recv(1); print('udp answered')\n"
      "except TimeoutError: print('udp is silent')\n"
      "except OSError as e: print('udp refused')\n"
      "s = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP); s.connect(('192.0.2.7', 0))\n"
      "s.settimeout(50); s.setsockopt(socket.IPPROTO_IP, 11, 1)\n"  // IP_RECVERR: else raw sockets are told nothing
      "try:\n"
      "  s.send(struct.pack('>BBHHH', 8, 0, 0xf7ff, 0, 0)); s.recv(1); print('icmp answered')\n"
      "except TimeoutError: print('icmp is silent')\n"
      "except OSError as e: print('icmp refused')\n"
      "s = socket.socket(socket.AF_INET6, socket.SOCK_STREAM); s.settimeout(50)\n"
      "try:\n"
      "  s.connect(('2001:db8::7', 80)); print('ipv6 connected')\n"
      "except TimeoutError: print('ipv6 is silent')\n"
      "except OSError as e: print('ipv6 refused')\n"
      "END\n");
  EXPECT_EQ(refused.out, "udp refused\nicmp refused\nipv6 refused\n") << refused.err;
}

TEST(Network, AServiceOfTheHostIsReachedOnlyByItsRuleAndRulesActAtOnce) {
  const Service service;
  const Sandbox sandbox;
  const std::string fetch = "curl -sS -m 60 http://host.docker.internal:" + service.port() + "/";
  EXPECT_TRUE(holds(sandbox.shell(fetch).out, "\"code\":\"denied\""));
  const auto direct = sandbox.shell("curl -sS -m 60 --noproxy '*' http://127.0.0.1:" + service.port() + "/");
  EXPECT_NE(direct.status, 0) << "the guest's loopback is not the host's: " << direct.out;

  const auto allowed = sbx({"policy", "allow", "network", "localhost:" + service.port(), "--sandbox", sandbox.name()});
  ASSERT_EQ(allowed.status, 0) << allowed.out << allowed.err;
  const bool reached = eventually([&] { return sandbox.shell(fetch).out == "hello"; });
  EXPECT_TRUE(reached) << sandbox.shell(fetch).out;
  EXPECT_EQ(sandbox.shell("docker ps -q && " + fetch).out, "hello");

  const auto removed = sbx(
      {"policy", "rm", "network", "--resource", "localhost:" + service.port(), "--sandbox", sandbox.name(), "--force"});
  EXPECT_EQ(removed.status, 0) << removed.out << removed.err;
  EXPECT_TRUE(eventually([&] { return holds(sandbox.shell(fetch).out, "\"code\":\"denied\""); }));

  const auto log = sbx({"policy", "log", sandbox.name(), "--json"});
  EXPECT_EQ(log.status, 0) << log.err;
  EXPECT_TRUE(holds(log.out, ":" + service.port())) << log.out;
}

TEST(Network, WorksAfterStopAndStart) {
  const Service service;
  const Sandbox sandbox({"--allow-network", "localhost:" + service.port()});
  const std::string fetch = "curl -sS -m 60 http://host.docker.internal:" + service.port() + "/";
  EXPECT_EQ(sandbox.shell(fetch).out, "hello");
  EXPECT_EQ(sbx({"stop", sandbox.name()}).status, 0);
  EXPECT_EQ(sandbox.shell(fetch).out, "hello") << "after stop and start";
}

// Ten times at once, then after 1, 2, 4 ... seconds: a guest that can end its gateway cannot keep the host busy with
// it.
TEST(Network, AGatewayThatEndsAgainAndAgainIsStartedAgainWithGrowingPauses) {
  const Service service;
  const Sandbox sandbox({"--allow-network", "localhost:" + service.port()});
  const pid_t keeper = sandbox.inspected()["keeper_pid"];
  pid_t gateway = 0;
  const auto another = [&] {
    const pid_t now = find_in_tree(keeper, "sbx-gateway");
    if (now == 0 || now == gateway) return false;
    gateway = now;
    return true;
  };
  ASSERT_TRUE(eventually(another));
  for (int i = 0; i < 10; ++i) {
    ASSERT_TRUE(kill_now(gateway));
    ASSERT_TRUE(eventually(another)) << "it was not started again";
  }
  for (const auto pause : {std::chrono::seconds(1), std::chrono::seconds(2)}) {
    const auto killed = std::chrono::steady_clock::now();
    ASSERT_TRUE(kill_now(gateway));
    ASSERT_TRUE(eventually(another)) << "it was not started again";
    EXPECT_GE(std::chrono::steady_clock::now() - killed, pause);
  }
  const auto fetched =
      sandbox.shell("curl -sS -m 60 --retry 5 --retry-all-errors http://host.docker.internal:" + service.port() + "/");
  EXPECT_EQ(fetched.out, "hello") << fetched.err;
}

// The long form of what Credentials.LetDockerBuild... does by the way.
TEST(Network, ContainersLeaveByTheGatewayTooAndTrustItUnderEitherRuntime) {
  if (!full()) GTEST_SKIP() << "SBX_FULL=1 runs it: every docker command costs seconds under software emulation";
  const Service service;
  const Sandbox sandbox({"--allow-network", "localhost:" + service.port()});
  const auto built = sandbox.shell(
      "mkdir -p www && echo served > www/index.html && cp /bin/busybox . && "
      "printf 'FROM scratch\\nCOPY busybox /bin/busybox\\nCOPY www /www\\nENTRYPOINT [\"/bin/busybox\"]\\n' "
      "> Dockerfile && docker build -q -t box . && docker network create own && "
      "docker run -d --name web --network own -p 8080:80 box httpd -f -p 80 -h /www");
  ASSERT_EQ(built.status, 0) << built.err;

  // Out: from the default bridge, from a network of the user's, and from the sandbox's own.
  const std::string url = "http://host.docker.internal:" + service.port() + "/";
  for (const std::string network : {"bridge", "own", "host"}) {
    const auto fetched = sandbox.shell("docker run --rm --network " + network + " box wget -qO- " + url);
    EXPECT_EQ(fetched.out, "hello") << network << fetched.err;
  }
  const auto denied = sandbox.shell("docker run --rm box wget -qO- http://denied.invalid/");  // by the default bridge
  EXPECT_TRUE(holds(denied.err, "403")) << denied.out << denied.err;
  const auto log = sbx({"policy", "log", sandbox.name(), "--json"});
  EXPECT_TRUE(holds(log.out, "denied.invalid")) << log.out;
  EXPECT_TRUE(holds(log.out, ":" + service.port())) << log.out;

  // Not out: a container by its name, a published port by the sandbox's loopback.
  EXPECT_EQ(sandbox.shell("docker run --rm --network own box wget -qO- http://web/").out, "served\n");
  EXPECT_EQ(sandbox.shell("curl -sS -m 60 http://127.0.0.1:8080/").out, "served\n");
  EXPECT_FALSE(holds(sbx({"policy", "log", sandbox.name(), "--json"}).out, "\"web"));

  // An image without authorities is given the sandbox's, by crun and by runc.
  const auto own = sandbox.shell("md5sum < /etc/ssl/certs/ca-certificates.crt; md5sum < /etc/sbx/extra-ca.pem").out;
  for (const std::string runtime : {"crun", "runc"}) {
    const auto given = sandbox.shell("docker run --rm --network none --runtime " + runtime +
                                     " box sh -c 'md5sum < $SSL_CERT_FILE; md5sum < $NODE_EXTRA_CA_CERTS'");
    EXPECT_EQ(given.out, own) << runtime << given.err;
  }
}

TEST(Network, WhatGitIsToldToFetchBySshGoesOverHttps) {
  const Sandbox sandbox;
  for (const std::string url : {"git@github.com:owner/project.git", "ssh://git@github.com/owner/project.git"}) {
    const auto rewritten = sandbox.shell("git ls-remote --get-url " + url);
    EXPECT_EQ(rewritten.out, "https://github.com/owner/project.git\n") << rewritten.err;
  }
  const auto kept = sandbox.shell("sudo sh -c 'echo $NODE_EXTRA_CA_CERTS $PIP_CERT'");
  EXPECT_EQ(kept.out, "/etc/sbx/extra-ca.pem /etc/ssl/certs/ca-certificates.crt\n") << kept.err;
}

}  // namespace
}  // namespace sbx::test
