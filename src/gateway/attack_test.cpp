// A guest that tries to break its gateway, or to use it for what it must not.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/capability.h>
#include <openssl/bio.h>
#include <openssl/ssl.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>

#include <fstream>

#include "base/sanitizers.h"
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

// Sanitizers keep what is freed, and shadows of the rest.
#if SBX_ADDRESS_SANITIZER || SBX_THREAD_SANITIZER
constexpr unsigned long kMostMemory = 2000UL << 10U;
#else
constexpr unsigned long kMostMemory = 400UL << 10U;
#endif

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
  const auto memory = std::stoul("0" + status_line(gateway.pid(), "VmRSS"));
  EXPECT_LT(memory, kMostMemory) << "kB";
  // It may end just now.
  if (const auto status = gateway.status_if_alive(); status.is_object()) {
    EXPECT_LE(status["connections"], 4096);
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

// Another process of the same user, without the rights over its namespace that this one has.
TEST_F(AttackTest, ItsMemoryIsOutOfReachForOthersOfTheSameUser) {
  auto gateway = start({rule("allow", {"**"})});
  const pid_t pid = gateway->pid();
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
    __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3] = {};
    if (::syscall(SYS_capset, &header, none) != 0) ::_exit(100);
    const auto path = "/proc/" + std::to_string(pid);
    for (const auto* file : {"/mem", "/maps", "/environ", "/auxv", "/io"}) {
      char byte = 0;
      const int fd = ::open((path + file).c_str(), O_RDONLY);
      if (fd >= 0 && ::read(fd, &byte, 1) == 1) ::_exit(1);
    }
    if (::ptrace(PTRACE_SEIZE, pid, nullptr, nullptr) == 0) ::_exit(2);
    char byte = 0;
    iovec ours{&byte, 1};
    iovec theirs{reinterpret_cast<void*>(0x400000), 1};
    if (::process_vm_readv(pid, &ours, 1, &theirs, 1, 0) >= 0 || errno != EPERM) ::_exit(3);
    const int pidfd = static_cast<int>(::syscall(SYS_pidfd_open, pid, 0));
    if (pidfd >= 0 && ::syscall(SYS_pidfd_getfd, pidfd, 0, 0) >= 0) ::_exit(4);
    ::_exit(0);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 0) << "the number of what was possible";
  std::ifstream limits("/proc/" + std::to_string(pid) + "/limits");
  std::string core;
  for (std::string line; std::getline(limits, line);) {
    if (line.starts_with("Max core file size")) core = line;
  }
  EXPECT_NE(core.find(" 0 "), std::string::npos) << core;
}

// GET / over TLS with an encrypted_client_hello extension that no key of anybody opens, as browsers send it (GREASE,
// RFC 9849 section 6.2), and by a client that means it. Returns the issuer of the certificate and the answer.
std::pair<std::string, std::string> ask_with_encrypted_hello(std::uint16_t port, const std::string& name) {
  const std::unique_ptr<SSL_CTX, decltype(&SSL_CTX_free)> context(SSL_CTX_new(TLS_client_method()), SSL_CTX_free);
  static const auto add = [](SSL*, unsigned, const unsigned char** out, std::size_t* size, int*, void*) {
    // Outer, HKDF-SHA256 with AES-128-GCM, config 7, 32 bytes of key, 64 of payload.
    static std::string body =
        std::string("\0\0\1\0\1\7\0\x20", 8) + std::string(32, 'k') + std::string("\0\x40", 2) + std::string(64, 'p');
    *out = reinterpret_cast<const unsigned char*>(body.data());
    *size = body.size();
    return 1;
  };
  SSL_CTX_add_client_custom_ext(context.get(), 0xfe0d, add, nullptr, nullptr, nullptr, nullptr);
  const std::unique_ptr<BIO, decltype(&BIO_free_all)> bio(BIO_new_ssl_connect(context.get()), BIO_free_all);
  SSL* ssl = nullptr;
  BIO_get_ssl(bio.get(), &ssl);
  SSL_set_tlsext_host_name(ssl, name.c_str());
  BIO_set_conn_hostname(bio.get(), ("127.0.0.1:" + std::to_string(port)).c_str());
  const auto request = "GET / HTTP/1.1\r\nHost: " + name + "\r\nConnection: close\r\n\r\n";
  if (BIO_do_handshake(bio.get()) != 1) return {"", "no handshake"};
  const std::unique_ptr<X509, decltype(&X509_free)> certificate(SSL_get1_peer_certificate(ssl), X509_free);
  char issuer[256] = "";
  X509_NAME_oneline(X509_get_issuer_name(certificate.get()), issuer, sizeof(issuer));
  BIO_write(bio.get(), request.data(), static_cast<int>(request.size()));
  std::string answer;
  char buffer[4096];
  for (int n = 0; (n = BIO_read(bio.get(), buffer, sizeof(buffer))) > 0;) {
    answer.append(buffer, static_cast<std::size_t>(n));
  }
  return {issuer, answer};
}

TEST_F(AttackTest, AnEncryptedClientHelloIsReadAndHidesNoName) {
  auto gateway = start({rule("allow", {"python.test"})});
  // What is no more than GREASE goes on working, read by the gateway.
  const auto [issuer, answer] = ask_with_encrypted_hello(gateway->leads_to("python.test:443"), "python.test");
  EXPECT_NE(issuer.find("a gateway under test"), std::string::npos) << issuer;
  EXPECT_TRUE(answer.starts_with("HTTP/1.1 404")) << answer;  // the server's own: there is nothing at /
  EXPECT_NE(answer.find("nothing here"), std::string::npos) << answer;
  // A public name in front of a hidden one is just another name.
  const auto [by, said] = ask_with_encrypted_hello(gateway->leads_to("python.test:443"), "front.test");
  EXPECT_NE(by.find("a gateway under test"), std::string::npos) << by;
  EXPECT_TRUE(said.starts_with("HTTP/1.1 403")) << said;
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
