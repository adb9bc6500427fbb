// sbx-gateway as a sandbox meets it: real clients, real servers, a network without an uplink.
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <boost/asio/post.hpp>
#include <future>

#include "gateway/dns_message.h"
#include "gateway/test_world.h"
#include "wire/length_prefix.h"

namespace sbx::gateway::test {
namespace {

using nlohmann::json;
using namespace std::string_literals;

// A connection to `authority`, as the guest opens it; call it on the gateway's loop.
std::shared_ptr<wire::Http2Stream> open_to(TestGateway& gateway, const std::string& authority) {
  wire::Http2Head head;
  head.method = "CONNECT";
  head.path = authority;
  auto stream = gateway.port()->open(std::move(head), false);
  return stream ? *stream : nullptr;
}

TEST_F(GatewayTest, AllowedHttpArrives) {
  auto gateway = start({rule("allow", {"allowed.test:80"})});
  const auto body = get(*gateway, "http://allowed.test/a?b=1");
  EXPECT_EQ(body.value_or(body ? "" : body.error().describe()), "plain GET /a?b=1 allowed.test\n");
  const auto log = gateway->log(1);
  ASSERT_EQ(log.size(), 1U);
  EXPECT_EQ(log[0]["kind"], "forward");
  EXPECT_EQ(log[0]["host"], "allowed.test");
  EXPECT_EQ(log[0]["path"], "/a");
  EXPECT_EQ(log[0]["allowed"], true);
}

TEST_F(GatewayTest, AllowedTlsIsPassedThroughUntouched) {
  auto gateway = start({rule("allow", {"allowed.test:443"})});
  // Only the server's own authority is trusted.
  const auto body = get(*gateway, "https://allowed.test/x", trusting(world_->public_root));
  EXPECT_EQ(body.value_or(body ? "" : body.error().describe()), "HTTP/2.0 GET /x auth= key= arg=\n");
  EXPECT_EQ(gateway->log(1)[0]["kind"], "transparent");
}

TEST_F(GatewayTest, ADenialIsA403WhateverCarriesIt) {
  auto gateway = start({});
  for (const auto& [url, version] :
       {std::pair("http://denied.test/x", "--http1.1"), std::pair("https://denied.test/x", "--http1.1"),
        std::pair("https://denied.test/x", "--http2")}) {
    const auto answer =
        get(*gateway, url, trusting(gateway->root_file(), {version, "-w", "%{http_code} %{http_version}"}));
    ASSERT_TRUE(answer) << url << ": " << answer.error().describe();
    const auto body = json::parse(answer->substr(0, answer->find('\n')), nullptr, false);
    ASSERT_TRUE(body.is_object()) << *answer;
    EXPECT_EQ(body["error"]["code"], "denied");
    EXPECT_EQ(body["host"], "denied.test");
    EXPECT_TRUE(body["allow"].get<std::string>().starts_with("sbx policy allow network denied.test:")) << body;
    EXPECT_NE(answer->find("403 "), std::string::npos);
    EXPECT_TRUE(answer->ends_with(version == std::string("--http2") ? "2" : "1.1")) << *answer;
  }
  for (const auto& entry : gateway->log(3)) EXPECT_EQ(entry["allowed"], false);
}

TEST_F(GatewayTest, OtherTcpThatIsDeniedIsReset) {
  auto gateway = start({});
  EXPECT_EQ(talk(*gateway, "denied.test:22", "SSH-2.0-x\r\n", false).status, 403);
  for (const auto& words : {std::string("SSH-2.0-x\r\n"), std::string("\x16\x03\x01\x00\x05hello", 10)}) {
    const auto said = talk(*gateway, "denied.test:9999", words, false);
    EXPECT_EQ(said.status, 200);
    EXPECT_TRUE(said.reset);
    EXPECT_EQ(said.answer, "");
  }
  for (const auto& entry : gateway->log(3)) {
    EXPECT_EQ(entry["allowed"], false);
    EXPECT_EQ(entry["kind"], "network");
  }
}

TEST_F(GatewayTest, RulesAboutPathsAreJudgedRequestByRequest) {
  auto gateway = start({rule("allow", {"allowed.test"}, {"GET"}, {"/ok/**"})});
  const auto root = gateway->root_file().string();
  for (const auto* version : {"--http1.1", "--http2"}) {
    const auto both = get(*gateway, "https://allowed.test/ok/a",
                          trusting(root, {version, "https://allowed.test/secret", "--cacert", root}));
    ASSERT_TRUE(both) << both.error().describe();
    EXPECT_NE(both->find("GET /ok/a"), std::string::npos) << *both;
    EXPECT_NE(both->find("\"denied\""), std::string::npos) << *both;
    const auto post =
        get(*gateway, "https://allowed.test/ok/a", trusting(root, {version, "-d", "x", "-w", "%{http_code}"}));
    EXPECT_TRUE(post && post->ends_with("403"));
  }
  const auto plain = get(*gateway, "http://allowed.test/no", {"-w", "%{http_code}"});
  EXPECT_TRUE(plain && plain->ends_with("403"));
}

TEST_F(GatewayTest, WhatIsAskedForMustBeWhatWasConnectedTo) {
  auto gateway = start({rule("allow", {"allowed.test"}), rule("allow", {"other.test"})});
  const auto root = gateway->root_file().string();
  // SNI of another name, though that is allowed too.
  const auto port = std::to_string(gateway->leads_to("allowed.test:443"));
  const auto fronted = curl({"--connect-to", "other.test:443:127.0.0.1:" + port, "https://other.test/", "--cacert",
                             root, "-w", "%{http_code}"});
  ASSERT_TRUE(fronted) << fronted.error().describe();
  EXPECT_TRUE(fronted->ends_with("403")) << *fronted;
  // No SNI.
  const auto silent = curl({"https://127.0.0.1:" + port + "/", "-k", "-w", "%{http_code}"});
  EXPECT_TRUE(silent && silent->ends_with("403")) << silent.value_or("");
  // Another Host, first or later.
  const auto host = get(*gateway, "http://allowed.test/", {"-H", "Host: other.test", "-w", "%{http_code}"});
  EXPECT_TRUE(host && host->ends_with("403")) << host.value_or("");
  for (const auto& entry : gateway->log(3)) EXPECT_EQ(entry["allowed"], false) << entry;
}

TEST_F(GatewayTest, ANameThatLeadsToAPrivateAddressIsDenied) {
  auto gateway = start({rule("allow", {"**"})});
  for (const auto* name : {"metadata.test", "private.test", "loopback.test"}) {
    const auto answer = get(*gateway, std::string("http://") + name + "/", {"-w", "%{http_code}"});
    ASSERT_TRUE(answer) << answer.error().describe();
    EXPECT_TRUE(answer->ends_with("403")) << *answer;
  }
  const auto direct = get(*gateway, "http://169.254.169.254/latest/", {"-w", "%{http_code}"});
  EXPECT_TRUE(direct && direct->ends_with("403"));
}

TEST_F(GatewayTest, AnAddressOfTheHostItselfNeedsARuleForIt) {
  auto gateway = start({rule("allow", {"**"})});
  for (const auto* host : {"own.test", "45.0.0.5"}) {
    const auto denied = get(*gateway, std::string("http://") + host + "/", {"-w", "%{http_code}"});
    ASSERT_TRUE(denied) << denied.error().describe();
    EXPECT_TRUE(denied->ends_with("403")) << *denied;
    EXPECT_NE(denied->find("an address of this host"), std::string::npos) << *denied;
  }
  ASSERT_TRUE(gateway->configure({rule("allow", {"own.test"}), rule("allow", {"45.0.0.5:80"})}));
  const auto allowed = get(*gateway, "http://own.test/");
  EXPECT_EQ(allowed.value_or(allowed ? "" : allowed.error().describe()), "plain GET / own.test\n");
}

TEST_F(GatewayTest, TheHostsServicesNeedTheirOwnRule) {
  auto gateway = start({rule("allow", {"**"})});
  const auto denied = get(*gateway, "http://host.docker.internal:8079/", {"-w", "%{http_code}"});
  EXPECT_TRUE(denied && denied->ends_with("403")) << denied.value_or("");
  ASSERT_TRUE(gateway->configure({rule("allow", {"localhost:8079"})}));
  const auto allowed = get(*gateway, "http://host.docker.internal:8079/", {"-w", "%{http_code}"});
  EXPECT_TRUE(allowed && allowed->ends_with("204")) << allowed.value_or("");
}

TEST_F(GatewayTest, TheExplicitProxyServesAllForms) {
  auto gateway = start({rule("allow", {"allowed.test"})});
  const auto proxy = "http://127.0.0.1:" + std::to_string(gateway->proxy());
  const auto plain = curl({"-x", proxy, "http://allowed.test/p", "http://allowed.test/q"});
  EXPECT_EQ(plain.value_or(plain ? "" : plain.error().describe()),
            "plain GET /p allowed.test\nplain GET /q allowed.test\n");
  const auto tunnel = curl({"-x", proxy, "https://allowed.test/t", "--cacert", world_->public_root});
  EXPECT_TRUE(tunnel && tunnel->find("GET /t") != std::string::npos) << (tunnel ? *tunnel : tunnel.error().describe());
  const auto denied = curl({"-x", proxy, "http://denied.test/", "-w", "%{http_code}"});
  EXPECT_TRUE(denied && denied->ends_with("403"));
  const auto hidden =
      curl({"-x", proxy, "https://denied.test/", "--cacert", gateway->root_file().string(), "-w", "%{http_code}"});
  EXPECT_TRUE(hidden && hidden->ends_with("403")) << (hidden ? *hidden : hidden.error().describe());
  EXPECT_EQ(gateway->log(3)[2]["kind"], "forward-bypass");
}

TEST_F(GatewayTest, AnInvalidCertificateOfTheServerIsTold) {
  auto gateway = start({rule("allow", {"wrong.test"}, {"GET"}, {"/**"})});
  const auto answer = get(*gateway, "https://wrong.test/", trusting(gateway->root_file(), {"-w", "%{http_code}"}));
  ASSERT_TRUE(answer) << answer.error().describe();
  EXPECT_TRUE(answer->ends_with("502")) << *answer;
  EXPECT_NE(answer->find("certificate"), std::string::npos) << *answer;
}

TEST_F(GatewayTest, AServerThatIsNotThereIsAConnectionFailure) {
  auto gateway = start({rule("allow", {"**"})});
  const auto refused = get(*gateway, "http://allowed.test:4444/");
  EXPECT_FALSE(refused);
  const auto proxy = "http://127.0.0.1:" + std::to_string(gateway->proxy());
  const auto told = curl({"-x", proxy, "http://allowed.test:4444/", "-w", "%{http_code}"});
  EXPECT_TRUE(told && told->ends_with("502")) << told.value_or("");
}

std::string dns_query(const std::string& name, DnsType type) {
  std::string query("\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00", 12);
  std::size_t at = 0;
  while (at < name.size()) {
    const auto end = std::min(name.find('.', at), name.size());
    query += static_cast<char>(end - at) + name.substr(at, end - at);
    at = end + 1;
  }
  query += std::string("\0\0", 2) + static_cast<char>(type) + std::string("\0\1", 2);
  return query;
}

TEST_F(GatewayTest, NamesExistAsPolicyAndTheHostSay) {
  auto gateway = start({rule("allow", {"allowed.test:8443"}), rule("allow", {"missing.test"})});
  const auto answer = [&](const std::string& name, DnsType type) {
    const auto reply = gateway->dns(dns_query(name, type));
    EXPECT_GE(reply.size(), 12U);
    return std::pair(reply[3] & 15, static_cast<int>(reply[7]));  // code, answers
  };
  EXPECT_EQ(answer("allowed.test", DnsType::kA), std::pair(0, 1));
  EXPECT_EQ(answer("missing.test", DnsType::kA).second, 0);
  EXPECT_EQ(answer("denied.test", DnsType::kA), std::pair(0, 1));
  EXPECT_EQ(answer("no-such-name-at-all.test", DnsType::kA), std::pair(0, 1));
  EXPECT_EQ(answer("allowed.test", DnsType::kAaaa), std::pair(0, 0));
  EXPECT_EQ(answer("allowed.test", DnsType::kHttps), std::pair(0, 0));
  EXPECT_EQ(answer("denied.test", DnsType::kTxt), std::pair(5, 0));
  const auto garbage = gateway->dns("garbage");
  EXPECT_EQ(garbage.size(), 12U);
}

TEST_F(GatewayTest, OtherRecordsAreThoseOfAllowedNamesAndAliasesAreFlattened) {
  const NameServer names;
  auto gateway = start({rule("allow", {"alias.test"})});
  const auto ask = [&](const std::string& name, DnsType type) { return gateway->dns(dns_query(name, type)); };
  for (const auto& [type, data] : {std::pair(DnsType::kA, "\xc0\x00\x02\x01"s), std::pair(DnsType::kTxt, "text of"s),
                                   std::pair(DnsType::kMx, "\4mail\4test"s)}) {
    const auto reply = ask("alias.test", type);
    ASSERT_GE(reply.size(), 12U);
    EXPECT_EQ(reply[3] & 15, 0);
    EXPECT_EQ(reply[7], 1) << "one answer, and no CNAME";
    EXPECT_NE(reply.find(data), std::string::npos) << data;
    EXPECT_EQ(reply.find("real-name"), std::string::npos) << "the name behind the alias";
  }
  const auto asked = names.asked();
  for (const char* question : {"alias.test 1", "alias.test 16", "alias.test 15"}) {
    EXPECT_NE(std::ranges::find(asked, question), asked.end()) << question;
  }
  // A name that carries something away, in every way to ask for it; and ways to ask that are nobody's.
  for (const auto type : {DnsType::kA, DnsType::kAaaa, DnsType::kTxt, DnsType::kMx, DnsType::kNs, DnsType::kSrv,
                          DnsType::kCname, DnsType::kSoa, DnsType::kPtr, DnsType::kHttps, static_cast<DnsType>(10)}) {
    (void)ask("c2VjcmV0.tunnel.test", type);
    (void)ask("c2VjcmV0.alias.test", type);
  }
  for (const auto type : {DnsType::kCname, DnsType::kSoa, DnsType::kPtr, static_cast<DnsType>(10)}) {
    EXPECT_EQ(ask("alias.test", type)[3] & 15, static_cast<int>(DnsCode::kRefused)) << static_cast<int>(type);
  }
  EXPECT_EQ(names.asked(), asked);
}

// What a guest can make the host's name server work, and carry away in names that policy allows.
TEST_F(GatewayTest, NamesAreLookedUpAtALimitedRate) {
  const NameServer names;
  auto gateway = start({rule("allow", {"**.many.test"})});
  constexpr int kBatches = 20;
  constexpr int kBatch = 100;
  int failed = 0;
  const auto began = std::chrono::steady_clock::now();
  for (int batch = 0; batch < kBatches; ++batch) {
    std::vector<std::string> queries;
    for (int i = 0; i < kBatch; ++i) {
      queries.push_back(dns_query("n" + std::to_string(batch * kBatch + i) + ".many.test", DnsType::kA));
    }
    for (const auto& reply : gateway->dns(queries)) {
      ASSERT_GE(reply.size(), 12U);
      failed += (reply[3] & 15) == static_cast<int>(DnsCode::kServerFailure) ? 1 : 0;
    }
  }
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - began;
  const auto asked = names.asked();
  const auto looked_up = std::ranges::count_if(asked, [](const std::string& line) { return line.ends_with(" 1"); });
  EXPECT_GE(looked_up, 300);
  EXPECT_LE(static_cast<double>(looked_up), 300 + 50 * took.count() + 1);
  EXPECT_GT(failed, 0) << took.count() << " s";
  // Its own connections are not served worse for it: what is known is known, and what is denied is not looked up.
  EXPECT_EQ(gateway->dns(dns_query("denied.test", DnsType::kA))[7], 1);
}

TEST_F(GatewayTest, ANewDenialCutsWhatIsOpen) {
  auto gateway = start({rule("allow", {"**"})});
  const auto flow = [&]() -> wire::Awaitable<bool> {
    wire::Http2Head head;
    head.method = "CONNECT";
    head.path = "allowed.test:443";
    auto stream = *gateway->port()->open(std::move(head), false);
    const auto response = co_await stream->response();
    EXPECT_EQ(response ? response->status : 0, 200);
    co_return response.has_value();
  };
  ASSERT_TRUE(gateway->run(flow()));
  EXPECT_EQ(gateway->status()["connections"], 1);
  ASSERT_TRUE(gateway->configure({rule("allow", {"**"}), rule("deny", {"allowed.test"})}));
  const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  while (gateway->status()["connections"] != 0 && std::chrono::steady_clock::now() < until) continue;
  EXPECT_EQ(gateway->status()["connections"], 0);
}

TEST_F(GatewayTest, Http1PassesWhole) {
  auto gateway = start({rule("allow", {"python.test"}, {"GET", "POST"}, {"/**"})});
  const auto root = gateway->root_file().string();
  for (const std::string base : {"http://python.test", "https://python.test"}) {
    const auto fetch = [&](const std::string& path, std::vector<std::string> more) {
      const auto answer = get(*gateway, base + path, trusting(root, std::move(more)));
      return answer ? *answer : answer.error().describe();
    };
    EXPECT_EQ(fetch("/body", {"-d", "counted"}), "counted");
    EXPECT_EQ(fetch("/body", {"-d", "in chunks", "-H", "Transfer-Encoding: chunked"}), "in chunks");
    EXPECT_EQ(fetch("/continue", {"-d", "wait", "-H", "Expect: 100-continue"}), "wait");
    EXPECT_EQ(fetch("/sse", {}), "data: 0\n\ndata: 1\n\ndata: 2\n\n");
    EXPECT_NE(fetch("/trailers", {"-i"}).find("checksum: abc"), std::string::npos);
    EXPECT_NE(fetch("/early", {"-i"}).find("after the hints"), std::string::npos);
    EXPECT_EQ(fetch("/early", {"-o", "/dev/null", "-w", "%{http_code}"}), "200");
    EXPECT_EQ(fetch("/close", {}), "until the end");
    EXPECT_EQ(fetch("/body", {"--http1.0", "-d", "old"}), "old");
    EXPECT_EQ(fetch("/body", {"-I", "-X", "GET", "-w", "%{http_code}"}).substr(0, 12), "HTTP/1.1 200");
  }
}

// What a server says is with the client before the server goes on.
TEST_F(GatewayTest, AnEventIsPassedOnWhenItHappens) {
  auto gateway = start({rule("allow", {"python.test"}, {"GET"}, {"/**"})});
  std::shared_ptr<wire::Http2Stream> stream;
  std::string answer;
  const auto read_until = [&](const std::string& end) -> wire::Awaitable<bool> {
    while (answer.find(end) == std::string::npos) {
      const auto chunk = co_await stream->read_chunk();
      if (!chunk || chunk->empty()) co_return false;
      answer += *chunk;
    }
    co_return true;
  };
  const auto begin = [&]() -> wire::Awaitable<bool> {
    stream = open_to(*gateway, "python.test:80");
    const std::string request = "GET /sse?held HTTP/1.1\r\nHost: python.test\r\n\r\n";
    if (!stream || !co_await stream->write(request)) co_return false;
    co_return co_await read_until("data: 0\n\n");
  };
  ASSERT_TRUE(gateway->run(begin())) << answer;
  EXPECT_EQ(answer.find("data: 1"), std::string::npos);
  ASSERT_TRUE(get(*gateway, "http://python.test/release"));
  EXPECT_TRUE(gateway->run(read_until("data: 2\n\n"))) << answer;
}

// Nobody reads at the other end: whoever writes is held back, and the gateway holds no more than its buffers.
TEST_F(GatewayTest, AReaderThatStallsHoldsTheWriterBackBothWays) {
  auto gateway = start({rule("allow", {"python.test"}, {"GET", "POST"}, {"/**"})});
  std::vector<std::shared_ptr<wire::Http2Stream>> streams;
  std::atomic<std::size_t> written = 0;
  const auto peak = [&] {
    const auto status = read_file("/proc/" + std::to_string(gateway->pid()) + "/status").value_or("");
    return std::atol(status.c_str() + status.find("VmHWM:") + 6);
  };
  const auto peak_before = peak();
  const auto begin = [&](std::string request) -> wire::Awaitable<bool> {
    auto stream = open_to(*gateway, "python.test:80");
    if (!stream) co_return false;
    streams.push_back(stream);
    const auto written_whole = co_await stream->write(request);
    co_return written_whole.has_value();
  };
  ASSERT_TRUE(gateway->run(begin("GET /large HTTP/1.1\r\nHost: python.test\r\n\r\n")));
  ASSERT_TRUE(gateway->run(begin("POST /hold HTTP/1.1\r\nHost: python.test\r\nContent-Length: 536870912\r\n\r\n")));
  const auto write_all = [](std::shared_ptr<wire::Http2Stream> stream,
                            std::atomic<std::size_t>& count) -> wire::Awaitable<void> {
    const std::string piece(65536, 'x');
    for (int i = 0; i < 8192; ++i) {
      if (!co_await stream->write(piece)) co_return;
      count += piece.size();
    }
  };
  auto writer = boost::asio::co_spawn(gateway->executor(), write_all(streams[1], written), boost::asio::use_future);
  const auto moved = [&] {
    const auto progress = json::parse(get(*gateway, "http://python.test/progress").value_or("null"), nullptr, false);
    return std::pair(progress.value("sent", std::size_t{0}), written.load());
  };
  auto before = moved();
  for (int still = 0; still < 20;) {
    const auto now = moved();
    still = now == before ? still + 1 : 0;
    before = now;
  }
  constexpr std::size_t kSockets = 64U << 20U;  // what the kernel holds on the way
  EXPECT_LT(before.first, kSockets);
  EXPECT_LT(before.second, kSockets);
  EXPECT_LT(peak() - peak_before, 32 * 1024) << "KiB";
  for (const auto& stream : streams) {
    boost::asio::post(gateway->executor(), [stream] { stream->reset(); });
  }
  writer.wait();
  ASSERT_TRUE(get(*gateway, "http://python.test/release"));
}

TEST_F(GatewayTest, TlsIsOfVersion12Or13OnBothSides) {
  auto gateway = start({rule("allow", {"**"}, {"GET"}, {"/**"})});
  const auto fetch = [&](const std::string& url, std::vector<std::string> more) {
    const auto answer = get(*gateway, url, trusting(gateway->root_file(), std::move(more)));
    return answer ? *answer : answer.error().describe();
  };
  for (const std::string port : {"8412", "8413"}) {
    const std::string by = port == "8412" ? "by TLSv1.2\n" : "by TLSv1.3\n";
    EXPECT_EQ(fetch("https://allowed.test:" + port + "/", {"--tls-max", "1.2"}), by);
    EXPECT_EQ(fetch("https://allowed.test:" + port + "/", {"--tlsv1.3"}), by);
  }
  const std::vector<std::string> old = {"--tls-max", "1.1", "--tlsv1", "--ciphers", "DEFAULT@SECLEVEL=0"};
  EXPECT_EQ(fetch("https://allowed.test:8412/", old).find("by TLS"), std::string::npos);
  const auto old_server = fetch("https://allowed.test:8411/", {"-w", "%{http_code}"});
  EXPECT_TRUE(old_server.ends_with("502")) << old_server;
}

TEST_F(GatewayTest, CredentialsAreAddedAndNeverShown) {
  json more;
  more["credentials"] = {{{"kind", "service"},
                          {"service", "s"},
                          {"domains", {"allowed.test"}},
                          {"header", "authorization"},
                          {"format", "Bearer %s"},
                          {"value", "real-value-of-service"}},
                         {{"kind", "custom"},
                          {"domains", {"python.test"}},
                          {"placeholder", "sbx-cs-placeholder01"},
                          {"in_body", true},
                          {"value", "real/value+custom"}}};
  auto gateway = start({rule("allow", {"**"})}, more);
  const auto root = gateway->root_file().string();
  for (const auto* version : {"--http1.1", "--http2"}) {
    const auto service =
        get(*gateway, "https://allowed.test/x", trusting(root, {version, "-H", "Authorization: Bearer from-guest"}));
    ASSERT_TRUE(service) << service.error().describe();
    EXPECT_NE(service->find("auth=Bearer *********************"), std::string::npos) << *service;
  }
  const auto custom = get(*gateway, "https://python.test/echo?k=sbx-cs-placeholder01",
                          trusting(root, {"-i", "-H", "X-Key: sbx-cs-placeholder01", "-u", "user:sbx-cs-placeholder01",
                                          "-d", "a sbx-cs-placeholder01 b"}));
  ASSERT_TRUE(custom) << custom.error().describe();
  EXPECT_EQ(custom->find("real"), std::string::npos) << *custom;
  EXPECT_NE(custom->find("transfer-encoding"), std::string::npos) << *custom;
  // Nothing over plain HTTP.
  const auto plain = get(*gateway, "http://python.test/echo", {"-H", "X-Key: sbx-cs-placeholder01"});
  EXPECT_TRUE(plain && plain->find("sbx-cs-placeholder01") != std::string::npos);
  // What cannot be searched is not shown.
  const auto encoded = get(*gateway, "https://python.test/encoded?br", trusting(root, {"-w", "%{http_code}"}));
  EXPECT_TRUE(encoded && encoded->ends_with("502")) << encoded.value_or("");
  for (const auto& entry : gateway->log(4)) EXPECT_EQ(entry.dump().find("real"), std::string::npos);
}

TEST_F(GatewayTest, WhatComesBackCompressedIsSearchedToo) {
  json more;
  more["credentials"] = {{{"kind", "custom"},
                          {"domains", {"python.test"}},
                          {"placeholder", "sbx-cs-placeholder01"},
                          {"value", "real/value+custom"}}};
  auto gateway = start({rule("allow", {"**"})}, more);
  const auto root = gateway->root_file().string();
  for (const std::string coding : {"gzip", "deflate"}) {
    const auto answer = get(*gateway, "https://python.test/encoded?" + coding,
                            trusting(root, {"-i", "-H", "X-Key: sbx-cs-placeholder01"}));
    ASSERT_TRUE(answer) << answer.error().describe();
    EXPECT_NE(answer->find("x-key is ****"), std::string::npos) << *answer;
    EXPECT_TRUE(answer->ends_with(" end")) << *answer;
    EXPECT_EQ(answer->find("real/value"), std::string::npos) << *answer;
    EXPECT_EQ(answer->find("content-encoding"), std::string::npos) << *answer;
  }
  // Cut short, or no such data at all: an error, not half an answer.
  for (const std::string broken : {"cut", "wrong"}) {
    const auto answer = get(*gateway, "https://python.test/encoded?" + broken, trusting(root));
    EXPECT_FALSE(answer) << *answer;
  }
}

// A service "box" at python.test, whose tokens are `more`.
json login_credentials(json more = json::object()) {
  json login = {{"kind", "oauth"},
                {"service", "box"},
                {"token_endpoints", {{{"host", "python.test"}, {"path", "/token"}}}},
                {"domains", {"python.test"}},
                {"access_sentinel", "sentinel-for-access"},
                {"refresh_sentinel", "sentinel-for-refresh"}};
  login.update(more);
  return {{"credentials", json::array({login})}};
}

TEST_F(GatewayTest, ALoginLeavesOnlySentinelsInTheGuest) {
  auto gateway = start({rule("allow", {"**"})}, login_credentials());
  const auto root = gateway->root_file().string();
  // However the endpoint is spelt.
  for (const std::string path : {"/token", "/Token", "//token", "/t%6Fken", "/token?x=1", "/token;a", "/;a/token"}) {
    const auto login = get(*gateway, "https://python.test" + path, trusting(root, {"--path-as-is", "-d", "code=1"}));
    ASSERT_TRUE(login) << login.error().describe();
    const auto tokens = json::parse(*login, nullptr, false);
    ASSERT_TRUE(tokens.is_object()) << path << *login;
    EXPECT_EQ(tokens["access_token"], "sentinel-for-access") << path;
    EXPECT_EQ(tokens["refresh_token"], "sentinel-for-refresh") << path;
  }
  const auto used =
      get(*gateway, "https://python.test/echo", trusting(root, {"-H", "Authorization: Bearer sentinel-for-access"}));
  ASSERT_TRUE(used) << used.error().describe();
  EXPECT_EQ(used->find("real-access-token"), std::string::npos);
  EXPECT_EQ(used->find("sentinel-for-access"), std::string::npos) << "the sentinel was sent to the server: " << *used;
  const auto renewed =
      get(*gateway, "https://python.test/token", trusting(root, {"-d", "refresh_token=sentinel-for-refresh"}));
  ASSERT_TRUE(renewed);
  EXPECT_EQ(renewed->find("real-refresh-token"), std::string::npos) << *renewed;
  // A token that would break out of its header.
  const auto bad = get(*gateway, "https://python.test/token", trusting(root, {"-d", "bad"}));
  EXPECT_FALSE(bad && bad->find("x: y") != std::string::npos) << *bad;
}

// The server echoes what it is sent, masked in the same length.
TEST_F(GatewayTest, ALoginIsToldToTheDaemonAndTakenFromIt) {
  const auto sent = [&](TestGateway& gateway) {
    const auto shown = get(gateway, "https://python.test/echo",
                           trusting(gateway.root_file(), {"-H", "Authorization: Bearer sentinel-for-access"}));
    const auto answer = json::parse(shown.value_or("{}"), nullptr, false);
    return answer.is_object() && answer.contains("headers") ? answer["headers"].value("authorization", "") : "";
  };
  const auto field = [](const std::string& text) { return wire::length_prefixed(text); };
  const auto update = [&](int number, const std::string& access) {
    return field(field(std::to_string(number)) + field("box") + field("0") + field(access) +
                 field("real-refresh-token"));
  };
  {
    auto gateway = start({rule("allow", {"**"})}, login_credentials());
    EXPECT_EQ(sent(*gateway), "Bearer sentinel-for-access") << "nobody has logged in";
    const auto root = gateway->root_file().string();
    ASSERT_TRUE(get(*gateway, "https://python.test/token", trusting(root, {"-d", "code=1"})));
    const auto first = gateway->logins(20);
    const auto at = first.find("real-access-token-no-");
    ASSERT_NE(at, std::string::npos);
    const std::string access = first.substr(at, first.find('\0', at) - at);
    EXPECT_EQ(first, update(1, access));
    const std::string used = "Bearer " + std::string(access.size(), '*');
    EXPECT_EQ(sent(*gateway), used);
    EXPECT_FALSE(get(*gateway, "https://python.test/token", trusting(root, {"-f", "-d", "bad"})));
    EXPECT_EQ(gateway->logins(20), first) << "an answer that was refused changed it";

    // The daemon does not know of it yet: the gateway's stands. It does, and says otherwise: the daemon's stands.
    const std::vector<json> rules = {rule("allow", {"**"})};
    ASSERT_TRUE(gateway->configure(rules, login_credentials({{"access", "an-older-token"}}), 0));
    EXPECT_EQ(sent(*gateway), used);
    ASSERT_TRUE(gateway->configure(rules, login_credentials({{"access", "another-token"}}), 1));
    EXPECT_EQ(sent(*gateway), "Bearer " + std::string(13, '*'));
    ASSERT_TRUE(gateway->configure(rules, login_credentials(), 1));
    EXPECT_EQ(sent(*gateway), "Bearer sentinel-for-access") << "it was removed";
  }
  auto next = start({rule("allow", {"**"})}, login_credentials({{"access", "a-stored-token"}}));
  EXPECT_EQ(sent(*next), "Bearer " + std::string(14, '*')) << "of a gateway that is gone";
}

TEST_F(GatewayTest, KeepsNothingOfADaemonThatIsGone) {
  auto gateway = start({rule("allow", {"**"})});
  ASSERT_EQ(gateway->status()["followers"], 0);
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(gateway->follow_for_a_moment(), 2);
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::minutes(1);
    while (gateway->status()["followers"] != 0) {
      ASSERT_LT(std::chrono::steady_clock::now(), deadline) << "something waits on for a daemon that is gone";
    }
  }
}

// Though the gateway is ahead of the daemon: nobody has told the daemon of these tokens.
TEST_F(GatewayTest, ALoginThatWasRemovedIsGoneAndNotToldAnyMore) {
  const std::vector<json> rules = {rule("allow", {"**"})};
  auto gateway = start(rules, login_credentials());
  const auto root = gateway->root_file().string();
  const auto log_in = [&] { return get(*gateway, "https://python.test/token", trusting(root, {"-d", "code=1"})); };
  const auto sent = [&] {
    return get(*gateway, "https://python.test/echo",
               trusting(root, {"-H", "Authorization: Bearer sentinel-for-access"}))
        .value_or("");
  };
  ASSERT_TRUE(log_in());
  ASSERT_EQ(sent().find("Bearer sentinel-for-access"), std::string::npos);
  ASSERT_TRUE(gateway->configure(rules, login_credentials({{"generation", 1}}), 0));
  EXPECT_NE(sent().find("Bearer sentinel-for-access"), std::string::npos) << "it is used still";
  ASSERT_TRUE(log_in());
  const auto told = gateway->logins(20);
  const auto field = [](const std::string& text) { return wire::length_prefixed(text); };
  EXPECT_EQ(told.substr(4, 17), field("2") + field("box") + field("1")) << told << ": only the new one";
}

// Whose answer comes after the removal.
TEST_F(GatewayTest, ALoginUnderWayWhenItIsRemovedIsNobodys) {
  const std::vector<json> rules = {rule("allow", {"**"})};
  auto gateway = start(rules, login_credentials());
  const auto root = gateway->root_file().string();
  auto under_way = std::async(std::launch::async, [&] {
    return get(*gateway, "https://python.test/token", trusting(root, {"-d", "code=held"}));
  });
  ASSERT_EQ(gateway->log(1).size(), 1U);
  ASSERT_TRUE(gateway->configure(rules, login_credentials({{"generation", 1}}), 0));
  ASSERT_TRUE(get(*gateway, "https://python.test/release", trusting(root)));
  const auto answer = under_way.get();
  ASSERT_TRUE(answer) << answer.error().describe();
  EXPECT_NE(answer->find("sentinel-for-access"), std::string::npos) << *answer;
  const auto used =
      get(*gateway, "https://python.test/echo", trusting(root, {"-H", "Authorization: Bearer sentinel-for-access"}));
  EXPECT_NE(used.value_or("").find("Bearer sentinel-for-access"), std::string::npos) << used.value_or("");
}

TEST_F(GatewayTest, ARegistrysTokenIsKeptAndItsPasswordAddedOtherwise) {
  json more;
  more["credentials"] = {{{"kind", "service"},
                          {"service", "registry:python.test"},
                          {"domains", {"python.test"}},
                          {"basic_user", "me"},
                          {"keep_bearer", true},
                          {"value", "real-password"}}};
  auto gateway = start({rule("allow", {"**"})}, more);
  const auto sent = [&](const std::string& header) {
    const auto answer =
        get(*gateway, "https://python.test/echo", trusting(gateway->root_file(), {"-H", "Authorization: " + header}));
    const auto echoed = json::parse(answer.value_or("{}"), nullptr, false);
    return echoed.is_object() && echoed.contains("headers") ? echoed["headers"].value("authorization", "") : "";
  };
  EXPECT_EQ(sent("Bearer of-the-registry"), "Bearer of-the-registry");
  const std::string masked = "Basic " + std::string(24, '*');  // base64 of me:real-password
  EXPECT_EQ(sent("Basic Z3Vlc3Q6Z3Vlc3Q="), masked);
  EXPECT_EQ(sent(""), masked);
}

}  // namespace
}  // namespace sbx::gateway::test

int main(int argc, char** argv) { return sbx::gateway::test::main_in_test_network(argc, argv); }
