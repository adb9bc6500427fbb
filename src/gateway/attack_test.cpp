// A guest that tries to break its gateway, or to use it for what it must not.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include <fstream>

#include "gateway/lockdown.h"
#include "gateway/test_world.h"

namespace sbx::gateway::test {
namespace {

using nlohmann::json;

std::string frame(int type, int flags, std::uint32_t stream, const std::string& payload) {
  std::string out;
  for (const int shift : {16, 8, 0}) out.push_back(static_cast<char>(payload.size() >> shift));
  out.push_back(static_cast<char>(type));
  out.push_back(static_cast<char>(flags));
  for (const int shift : {24, 16, 8, 0}) out.push_back(static_cast<char>(stream >> shift));
  return out + payload;
}
std::string preface() { return "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, ""); }
// Literal fields without indexing (RFC 7541 section 6.2.2): :method CONNECT, :authority.
std::string connect_frame(std::uint32_t stream, const std::string& authority) {
  return frame(1, 4, stream,
               std::string("\x02\x07") + "CONNECT" + '\x01' + static_cast<char>(authority.size()) + authority);
}

std::string status_line(pid_t pid, const std::string& name) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/status");
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with(name + ":")) return line.substr(line.find_first_not_of(" \t", name.size() + 1));
  }
  return "";
}

class AttackTest : public GatewayTest {
 protected:
  // Bytes to the port instead of a session. Writing ends when the gateway closes.
  static void throw_at(TestGateway& gateway, const std::string& bytes) { (void)write_all(gateway.raw_port(), bytes); }
};

TEST_F(AttackTest, GarbageEndsTheSessionAndNothingElse) {
  TestGateway gateway({}, world_->authority.root(), json::object(), TestGateway::Port::kRaw);
  throw_at(gateway, std::string(1U << 20U, 'G'));
  EXPECT_FALSE(gateway.wait_for_end().success());
}

TEST_F(AttackTest, AHundredThousandStreamsAreTooMany) {
  TestGateway gateway({}, world_->authority.root(), json::object(), TestGateway::Port::kRaw);
  std::string bytes = preface();
  for (std::uint32_t i = 0; i < 100'000; ++i) bytes += connect_frame(2 * i + 1, "denied.test:9999");
  std::thread reader([fd = gateway.raw_port()] {
    char buffer[65536];
    while (::read(fd, buffer, sizeof(buffer)) > 0) {
    }
  });
  throw_at(gateway, bytes);
  if (gateway.running()) {
    const auto memory = std::stoul("0" + status_line(gateway.pid(), "VmRSS"));
    EXPECT_LT(memory, 400U << 10U) << "kB";
    EXPECT_LE(gateway.status()["connections"], 4096);
  }
  ::shutdown(gateway.raw_port(), SHUT_RDWR);
  reader.join();
  // By its own decision or because the port closed; not by a signal.
  EXPECT_EQ(gateway.wait_for_end().signal, 0);
}

TEST_F(AttackTest, ResetsWithoutEndEndTheSession) {
  TestGateway gateway({}, world_->authority.root(), json::object(), TestGateway::Port::kRaw);
  std::string bytes = preface();
  for (std::uint32_t i = 0; i < 20'000; ++i) {
    bytes += connect_frame(2 * i + 1, "denied.test:9999") + frame(3, 0, 2 * i + 1, std::string("\0\0\0\x08", 4));
  }
  throw_at(gateway, bytes);
  const auto end = gateway.wait_for_end();
  EXPECT_EQ(end.code, 1);
  EXPECT_EQ(end.signal, 0);
}

TEST_F(AttackTest, NamesThatAreNoneAreRefused) {
  auto gateway = start({rule("allow", {"**"})});
  for (const std::string authority :
       {"allowed.test", ":80", "allowed.test:0", "allowed.test:65536", "allowed.test:80x", "a%00.test:80", "[::1:80",
        "a..b:80", "allowed.test/x:80", "user@allowed.test:80", "256.256.256.256:80"}) {
    const auto said = talk(*gateway, authority, "GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    // Some are refused by HTTP/2 itself, which resets the stream.
    EXPECT_TRUE(said.status == 400 || (said.status == 0 && said.reset)) << authority << " " << said.status;
  }
}

TEST_F(AttackTest, SpellingsOfLoopbackAreLoopback) {
  auto gateway = start({rule("allow", {"**"})});
  for (const auto* host : {"127.0.0.1", "127.1", "2130706433", "0x7f.1", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0",
                           "localhost", "LOCALHOST", "localhost.", "host.docker.internal", "[::ffff:a9fe:a9fe]"}) {
    const auto said = talk(*gateway, std::string(host) + ":8079", "GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    EXPECT_EQ(said.answer.find("HTTP/1.1 204"), std::string::npos) << host;
    EXPECT_TRUE(said.status == 400 || said.answer.starts_with("HTTP/1.1 403")) << host << said.answer;
  }
}

TEST_F(AttackTest, RequestsWithTwoMeaningsAreRefused) {
  auto gateway = start({rule("allow", {"python.test"})});
  const std::string host = "Host: python.test\r\n";
  for (const auto& request : std::vector<std::string>{
           "POST /body HTTP/1.1\r\n" + host +
               "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /echo",
           "POST /body HTTP/1.1\r\n" + host + "Content-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
           "GET /echo HTTP/1.1\r\n" + host + "Host: other.test\r\n\r\n",
           "GET /echo HTTP/1.1\r\n" + host + "X: a\r\n b\r\n\r\n",
           "GET /echo HTTP/1.1\nHost: python.test\n\r\n\r\n",
           "GET http://other.test/echo HTTP/1.1\r\n" + host + "\r\n",
           "CONNECT other.test:80 HTTP/1.1\r\n" + host + "\r\n",
       }) {
    const auto said = talk(*gateway, "python.test:80", request);
    EXPECT_TRUE(said.answer.starts_with("HTTP/1.1 40")) << request << said.answer;
    EXPECT_EQ(said.answer.find("\"headers\""), std::string::npos) << "a request reached the server: " << said.answer;
  }
}

TEST_F(AttackTest, ALaterRequestForAnotherHostIsDenied) {
  auto gateway = start({rule("allow", {"python.test"}), rule("allow", {"other.test"})});
  const auto said =
      talk(*gateway, "python.test:80",
           "GET /echo HTTP/1.1\r\nHost: python.test\r\n\r\nGET /echo HTTP/1.1\r\nHost: other.test\r\n\r\n");
  EXPECT_TRUE(said.answer.starts_with("HTTP/1.1 200")) << said.answer;
  EXPECT_NE(said.answer.find("HTTP/1.1 403"), std::string::npos) << said.answer;
}

TEST_F(AttackTest, BytesThatAreNoHttpDoNotSlipPastRulesAboutPaths) {
  auto gateway = start({rule("allow", {"python.test"}, {"GET"}, {"/echo"})});
  const auto said = talk(*gateway, "python.test:80", std::string("\x00\x01 raw", 6));
  EXPECT_TRUE(said.reset);
  EXPECT_EQ(said.answer, "");
}

TEST_F(AttackTest, TheProcessIsConfinedAndHidesItsSecrets) {
  json more;
  more["credentials"] = {
      {{"kind", "custom"}, {"domains", {"a.test"}}, {"placeholder", "placeholder-1"}, {"value", "a-value-to-hide"}}};
  auto gateway = start({rule("allow", {"**"})}, more);
  EXPECT_EQ(status_line(gateway->pid(), "Seccomp"), "2");
  EXPECT_EQ(status_line(gateway->pid(), "NoNewPrivs"), "1");
  EXPECT_EQ(status_line(gateway->pid(), "CapEff"), "0000000000000000");
  for (const auto* file : {"cmdline", "environ"}) {
    std::ifstream in("/proc/" + std::to_string(gateway->pid()) + "/" + file);
    const std::string text((std::istreambuf_iterator<char>(in)), {});
    EXPECT_EQ(text.find("a-value-to-hide"), std::string::npos);
  }
}

// What the filter refuses, in a process of its own.
TEST(Lockdown, NothingButTheNetworkIsLeft) {
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    if (!lock_down()) ::_exit(100);
    int step = 1;
    const auto refused = [&](long rc) {
      if (rc != -1 || errno != EPERM) ::_exit(step);
      ++step;
    };
    refused(::socket(AF_UNIX, SOCK_STREAM, 0));
    refused(::socket(AF_NETLINK, SOCK_RAW, 0));
    refused(::socket(AF_PACKET, SOCK_RAW, 0));
    refused(::execl("/bin/true", "true", nullptr));
    refused(::open("/tmp/sbx-gateway-lockdown", O_CREAT | O_WRONLY, 0600));
    refused(::open("/dev/null", O_RDWR));
    refused(::kill(::getppid(), 0));
    refused(::fork());
    refused(::unlink("/tmp/sbx-gateway-lockdown"));
    const int fd = ::socket(AF_INET, SOCK_STREAM, 0);
    ::_exit(fd >= 0 ? 0 : 101);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 0) << "the number of the step";
}

}  // namespace
}  // namespace sbx::gateway::test

int main(int argc, char** argv) { return sbx::gateway::test::main_in_test_network(argc, argv); }
