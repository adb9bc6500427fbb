#include "gateway/test_world.h"

#include <csignal>

#include "gateway/test_network.h"

namespace sbx::gateway::test {

namespace {

constexpr const char* kSite = R"(
server {
  listen 44.0.0.1:80;
  listen 45.0.0.5:80;
  location / { return 200 "plain $request_method $request_uri $host\n"; }
}
server {
  listen 44.0.0.1:443 ssl http2;
  ssl_certificate FOLDER/allowed.test.pem;
  ssl_certificate_key FOLDER/allowed.test.key;
  location / { return 200 "$server_protocol $request_method $request_uri auth=$http_authorization key=$http_x_api_key arg=$arg_k\n"; }
}
server {
  listen 44.0.0.1:8412 ssl;
  ssl_protocols TLSv1.2;
  ssl_certificate FOLDER/allowed.test.pem;
  ssl_certificate_key FOLDER/allowed.test.key;
  location / { return 200 "by $ssl_protocol\n"; }
}
server {
  listen 44.0.0.1:8413 ssl;
  ssl_protocols TLSv1.3;
  ssl_certificate FOLDER/allowed.test.pem;
  ssl_certificate_key FOLDER/allowed.test.key;
  location / { return 200 "by $ssl_protocol\n"; }
}
server {
  listen 44.0.0.1:8411 ssl;
  ssl_protocols TLSv1 TLSv1.1;
  ssl_ciphers DEFAULT@SECLEVEL=0;
  ssl_certificate FOLDER/allowed.test.pem;
  ssl_certificate_key FOLDER/allowed.test.key;
  location / { return 200 "by $ssl_protocol\n"; }
}
server {
  listen 44.0.0.2:443 ssl;
  ssl_certificate FOLDER/allowed.test.pem;
  ssl_certificate_key FOLDER/allowed.test.key;
  location / { return 200 "wrong certificate\n"; }
}
)";

}  // namespace

World* GatewayTest::world_ = nullptr;

World::World() : public_root(folder.path() / "public.pem") {
  EXPECT_TRUE(write_file_atomically(public_root, authority.root()));
  nginx = std::make_unique<Nginx>(authority, std::vector<std::string>{"allowed.test"}, kSite);
  plain = std::make_unique<PythonServer>(authority, "44.0.0.3", 80, "");
  secure = std::make_unique<PythonServer>(authority, "44.0.0.3", 443, "python.test");
}

Result<std::string> GatewayTest::get(TestGateway& gateway, const std::string& url, std::vector<std::string> more) {
  const std::size_t scheme = url.starts_with("https") ? 8 : 7;
  const auto host = url.substr(scheme, url.find('/', scheme) - scheme);
  const auto authority = host.find(':') == std::string::npos ? host + (scheme == 8 ? ":443" : ":80") : host;
  const auto port = gateway.leads_to(authority);
  std::vector<std::string> arguments{"--connect-to", authority + ":127.0.0.1:" + std::to_string(port), url};
  arguments.insert(arguments.end(), more.begin(), more.end());
  return curl(std::move(arguments));
}

std::vector<std::string> GatewayTest::trusting(const std::string& file, std::vector<std::string> more) {
  more.insert(more.end(), {"--cacert", file});
  return more;
}

GatewayTest::Talk GatewayTest::talk(TestGateway& gateway, const std::string& authority, const std::string& words,
                                    bool finish) {
  const auto flow = [&]() -> wire::Awaitable<Talk> {
    Talk result;
    wire::Http2Head head;
    head.method = "CONNECT";
    head.path = authority;
    auto stream = gateway.port()->open(std::move(head), false);
    if (!stream) co_return result;
    const auto response = co_await (*stream)->response();
    result.status = response ? response->status : 0;
    if (!words.empty()) (void)co_await (*stream)->write(words);
    if (finish) (void)co_await (*stream)->finish();
    for (;;) {
      const auto chunk = co_await (*stream)->read_chunk();
      if (!chunk || chunk->empty()) break;
      result.answer += *chunk;
    }
    (*stream)->reset();
    co_await (*stream)->closed();
    result.reset = (*stream)->reset_code() != 0;
    co_return result;
  };
  return gateway.run(flow());
}

int main_in_test_network(int argc, char** argv) {
  ::testing::InitGoogleTest(&argc, argv);
  std::signal(SIGPIPE, SIG_IGN);
  if (!::testing::GTEST_FLAG(list_tests)) {
    const auto entered = enter_test_network(
        {"44.0.0.1", "44.0.0.2", "44.0.0.3", "44.0.0.4", "45.0.0.5", "44.0.0.9", "169.254.169.254", "10.1.2.3"},
        "45.0.0.5",
        "127.0.0.1 localhost\n44.0.0.1 allowed.test other.test\n44.0.0.2 wrong.test\n44.0.0.3 python.test\n"
        "44.0.0.4 grpc.test git.test\n45.0.0.5 own.test\n44.0.0.9 proxy.test\n169.254.169.254 metadata.test\n10.1.2.3 "
        "private.test\n"
        "127.0.0.1 loopback.test\n");
    if (!entered) {
      std::fprintf(stderr, "no network of its own for the test: %s\n", entered.error().describe().c_str());
      return 1;
    }
  }
  return RUN_ALL_TESTS();
}

}  // namespace sbx::gateway::test
