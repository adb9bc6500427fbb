// Protocols that a gateway must carry: WebSocket, gRPC, protocols whose server speaks first, and upstream proxies.
#include <gtest/gtest.h>

#include "gateway/test_world.h"

namespace sbx::gateway::test {
namespace {

using nlohmann::json;

Result<std::string> python(std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), "/usr/bin/python3");
  return Command(std::move(arguments)).output();
}

Subprocess background(std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), "/usr/bin/python3");
  auto started = Command(std::move(arguments)).die_with_parent().start();
  EXPECT_TRUE(started);
  return std::move(*started);
}

class ProtocolsTest : public GatewayTest {};

TEST_F(ProtocolsTest, WebSocketsPassThroughAGatewayThatReads) {
  auto gateway = start({rule("allow", {"python.test"}, {"GET"}, {"/websocket"})});
  const auto port = gateway->leads_to("python.test:443");
  const auto said = python({SBX_TEST_CLIENT, "websocket", "python.test", std::to_string(port), gateway->root_file()});
  EXPECT_EQ(said.value_or(said ? "" : said.error().describe()), "HTTP/1.1 101 Switching Protocols\nfirst\nsecond\n");
}

TEST_F(ProtocolsTest, GrpcStreamsAndItsTrailersPass) {
  world_->authority.write(world_->folder.path(), "grpc.test");
  const auto file = [&](const char* suffix) {
    return (world_->folder.path() / (std::string("grpc.test") + suffix)).string();
  };
  const auto server = background({SBX_TEST_GRPC_SERVER, "44.0.0.4", "443", file(".pem"), file(".key")});
  wait_for_listener("44.0.0.4", 443);
  // Once read request by request, once passed through.
  for (const bool reads : {true, false}) {
    auto gateway = reads ? start({rule("allow", {"grpc.test"}, {"POST"}, {"/test.Echo/**"})})
                         : start({rule("allow", {"grpc.test"})});
    const auto port = gateway->leads_to("grpc.test:443");
    const auto root = reads ? gateway->root_file().string() : world_->public_root;
    const auto said = python({SBX_TEST_CLIENT, "grpc", "grpc.test", std::to_string(port), root});
    EXPECT_EQ(said.value_or(said ? "" : said.error().describe()), "A\nB\nC\nFAILED_PRECONDITION as asked\n");
  }
}

// A private repository: cloned and pushed to by a git that has a placeholder for a password at most.
TEST_F(ProtocolsTest, GitWorksOverHttpsWithALoginThatItNeverSees) {
  world_->authority.write(world_->folder.path(), "git.test");
  const auto folder = world_->folder.path();
  const auto root = folder / "repositories";
  const auto git = [&](const std::filesystem::path& where, std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), {"/usr/bin/git", "-C", where, "-c", "user.name=n", "-c", "user.email=a@b"});
    Command command(std::move(arguments));
    command.environment(
        {"PATH=/usr/bin:/bin", "GIT_CONFIG_NOSYSTEM=1", "HOME=" + folder.string(), "GIT_TERMINAL_PROMPT=0"});
    const auto out = command.output();
    EXPECT_TRUE(out) << out.error().describe();
    return out.value_or("");
  };
  std::filesystem::create_directories(root / "project.git");
  git(root / "project.git", {"init", "-q", "--bare", "-b", "main"});
  git(root / "project.git", {"config", "http.receivepack", "true"});
  const auto server = background({SBX_TEST_GIT_SERVER, "44.0.0.4", "8443", (folder / "git.test.pem").string(),
                                  (folder / "git.test.key").string(), root.string(), "x-access-token:real-git-token"});
  wait_for_listener("44.0.0.4", 8443);
  json more;
  more["credentials"] = {{{"kind", "service"},
                          {"service", "github"},
                          {"domains", {"git.test:8443"}},
                          {"basic_user", "x-access-token"},
                          {"value", "real-git-token"}}};
  auto gateway = start({rule("allow", {"git.test:8443"})}, more);
  // git has no --connect-to: the explicit proxy is the other way in.
  const std::vector<std::string> by_proxy{"-c", "http.sslCAInfo=" + gateway->root_file().string(), "-c",
                                          "http.proxy=http://127.0.0.1:" + std::to_string(gateway->proxy())};
  const auto with = [&](std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), by_proxy.begin(), by_proxy.end());
    return arguments;
  };
  git(folder, with({"clone", "-q", "https://git.test:8443/project.git", "first"}));
  ASSERT_TRUE(write_file_atomically(folder / "first" / "file", std::string(300'000, 'x')));
  git(folder / "first", {"checkout", "-q", "-B", "main"});
  git(folder / "first", {"add", "file"});
  git(folder / "first", {"commit", "-q", "-m", "a change"});
  git(folder / "first", with({"push", "-q", "origin", "main"}));
  git(folder, with({"clone", "-q", "https://git.test:8443/project.git", "second"}));
  EXPECT_EQ(git(folder / "second", {"log", "--format=%s"}), "a change\n");
  EXPECT_EQ(std::filesystem::file_size(folder / "second" / "file"), 300'000U);
  for (const auto& entry : gateway->log(3)) EXPECT_EQ(entry.dump().find("real-git-token"), std::string::npos);
}

TEST_F(ProtocolsTest, AServerThatSpeaksFirstIsHeard) {
  auto gateway = start({rule("allow", {"allowed.test"})});
  const auto server = background(
      {"-c",
       "import socket\nl=socket.create_server(('44.0.0.1',2525))\nwhile True:\n  c,_=l.accept()\n  try:\n"
       "    c.sendall(b'220 hello\\r\\n')\n    d=c.recv(100)\n    c.sendall(b'250 '+d)\n  except OSError: pass\n"
       "  c.close()\n"});
  wait_for_listener("44.0.0.1", 2525);
  const auto flow = [&]() -> wire::Awaitable<std::string> {
    wire::Http2Head head;
    head.method = "CONNECT";
    head.path = "allowed.test:2525";
    auto stream = gateway->port()->open(std::move(head), false);
    if (!stream) co_return stream.error().describe();
    const auto response = co_await (*stream)->response();
    if (!response || response->status != 200) co_return std::string("not connected");
    std::string said = (co_await (*stream)->read_chunk()).value_or("");
    (void)co_await (*stream)->write("HELO x\r\n");
    said += (co_await (*stream)->read_chunk()).value_or("");
    co_return said;
  };
  EXPECT_EQ(gateway->run(flow()), "220 hello\r\n250 HELO x\r\n");
  EXPECT_EQ(gateway->log(1).back()["kind"], "network");
}

TEST_F(ProtocolsTest, UpstreamProxiesAreAskedByName) {
  struct Case {
    const char* kind;
    const char* port;
    const char* user;
  };
  for (const auto& [kind, port, user] :
       {Case{"http", "3101", ""}, Case{"http", "3102", "me"}, Case{"socks", "3103", ""}, Case{"socks", "3104", "me"}}) {
    const auto proxy = background({SBX_TEST_PROXY, kind, port, user, "p@ss"});
    wait_for_listener("44.0.0.9", static_cast<std::uint16_t>(std::stoi(port)));
    const std::string scheme = std::string(kind) == "http" ? "http" : "socks5h";
    const auto url = [&](const std::string& password) {
      return scheme + "://" + (*user != '\0' ? std::string(user) + ":" + password + "@" : "") + "proxy.test:" + port;
    };
    json more;
    more["upstream_proxy"] = {{"url", url("p%40ss")}, {"no_proxy", "python.test,.internal"}};
    auto gateway = start({rule("allow", {"**"})}, more);
    // A name that only the proxy knows.
    const auto through = get(*gateway, "http://elsewhere.test/x");
    EXPECT_EQ(through.value_or(through ? "" : through.error().describe()), "plain GET /x elsewhere.test\n") << kind;
    // The proxy's names are its own: this one leads elsewhere from here.
    const auto named = get(*gateway, "http://private.test/y");
    EXPECT_EQ(named.value_or(named ? "" : named.error().describe()), "plain GET /y private.test\n") << kind;
    const auto direct = get(*gateway, "http://python.test/body", {"-d", "direct"});
    EXPECT_EQ(direct.value_or(direct ? "" : direct.error().describe()), "direct");
    const auto local = get(*gateway, "http://169.254.169.254/", {"-w", "%{http_code}"});
    EXPECT_TRUE(local && local->ends_with("403"));
    if (*user == '\0') continue;
    more["upstream_proxy"]["url"] = url("wrong");
    ASSERT_TRUE(gateway->configure({rule("allow", {"**"})}, more));
    EXPECT_FALSE(get(*gateway, "http://elsewhere.test/x"));
  }
}

}  // namespace
}  // namespace sbx::gateway::test

int main(int argc, char** argv) { return sbx::gateway::test::main_in_test_network(argc, argv); }
