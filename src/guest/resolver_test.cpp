#include "guest/resolver.h"

#include <gtest/gtest.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/connect.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/read.hpp>
#include <boost/asio/write.hpp>

namespace sbx::guest {
namespace {

using namespace std::string_literals;
using boost::asio::ip::address_v4;

constexpr std::uint16_t kTxt = 16;

// A gateway that knows exists.example, and text for it.
struct FakeGateway {
  std::vector<std::string> asked;
  bool there = true;

  Awaitable<Result<std::string>> ask(std::string message) {
    const auto query = parse_dns_query(message).value();
    asked.push_back(query.name + "/" + std::to_string(query.type));
    if (!there) co_return fail(ErrorCode::kUnavailable, "gone");
    if (query.name != "exists.example") co_return dns_answer(query, DnsCode::kNoSuchName);
    std::vector<DnsRecord> records;
    if (query.type == kDnsA) records.push_back({kDnsA, 1, "\x5d\xb8\xd8\x22"s});
    if (query.type == kTxt)
      records.push_back({kTxt, 1, "\xff"s + std::string(255, 't') + "\xff"s + std::string(255, 't')});
    co_return dns_answer(query, DnsCode::kNoError, records);
  }
};

class ResolverTest : public testing::Test {
 protected:
  std::string answer(const std::string& message) {
    std::string said;
    boost::asio::co_spawn(
        loop_, [&]() -> Awaitable<void> { said = co_await resolver_.answer(message); }, boost::asio::detached);
    loop_.restart();
    loop_.run();
    return said;
  }
  std::string ask(std::string_view name, std::uint16_t type = kDnsA) { return answer(dns_question(name, type)); }

  boost::asio::io_context loop_{1};
  NameMap names_;
  FakeGateway gateway_;
  Resolver resolver_{loop_.get_executor(), names_,
                     [this](std::string message) { return gateway_.ask(std::move(message)); }};
};

TEST_F(ResolverTest, AnswersWithAnAddressOfItsOwnAndNeverTheRealOne) {
  const auto said = ask("exists.example");
  EXPECT_TRUE(judge_dns_answer(said).value().has_address);
  EXPECT_EQ(said.find("\x5d\xb8\xd8\x22"), std::string::npos);
  const auto address = names_.known_address("exists.example").value();
  EXPECT_TRUE(NameMap::covers(address));
  EXPECT_EQ(said.substr(said.size() - 4, 2), "\xc6\x12");
  EXPECT_EQ(ask("EXISTS.example").substr(said.size() - 4), said.substr(said.size() - 4));
  EXPECT_EQ(gateway_.asked.size(), 1U) << "the second time it is known";
}

TEST_F(ResolverTest, ANameThatDoesNotExistGetsNoAddress) {
  EXPECT_EQ(judge_dns_answer(ask("no.example")).value().code, DnsCode::kNoSuchName);
  EXPECT_EQ(names_.known_address("no.example"), std::nullopt);
}

TEST_F(ResolverTest, AnswersAaaaAndServiceBindingsEmptyWithoutAsking) {
  for (const auto type : {kDnsAaaa, kDnsHttps, kDnsSvcb}) {
    const auto verdict = judge_dns_answer(ask("exists.example", type)).value();
    EXPECT_EQ(verdict.code, DnsCode::kNoError);
    EXPECT_FALSE(verdict.has_address);
  }
  EXPECT_TRUE(gateway_.asked.empty());
}

TEST_F(ResolverTest, AnswersReverseQueriesItself) {
  (void)ask("exists.example");
  const auto address = names_.known_address("exists.example").value();
  const std::string reverse = std::to_string(address & 0xffU) + ".0.18.198.in-addr.arpa";
  EXPECT_NE(ask(reverse, kDnsPtr).find(dns_wire_name("exists.example")), std::string::npos);
  EXPECT_EQ(judge_dns_answer(ask("8.8.8.8.in-addr.arpa", kDnsPtr)).value().code, DnsCode::kNoSuchName);
  EXPECT_EQ(gateway_.asked.size(), 1U);
}

TEST_F(ResolverTest, PassesOtherTypesOnAndKeepsTheClientsId) {
  auto message = dns_question("exists.example", kTxt);
  message[0] = '\x77';
  const auto said = answer(message);
  EXPECT_EQ(said[0], '\x77');
  EXPECT_GT(said.size(), 512U);
}

TEST_F(ResolverTest, WithoutAGatewayTheServerHasFailed) {
  gateway_.there = false;
  EXPECT_EQ(judge_dns_answer(ask("exists.example")).value().code, DnsCode::kServerFailure);
  EXPECT_TRUE(judge_dns_answer(ask("gateway.docker.internal")).value().has_address);
  EXPECT_TRUE(judge_dns_answer(ask("localhost")).value().has_address);
}

TEST_F(ResolverTest, GarbageIsAnsweredAsSuchOrNotAtAll) {
  EXPECT_EQ(answer(""), "");
  EXPECT_EQ(answer("\x01\x02\x80\x00"s), "") << "an answer is never answered";
  EXPECT_EQ(judge_dns_answer(answer("\x01\x02\x01\x00\x00\x05zzzz"s)).value().code, DnsCode::kMalformed);
}

TEST_F(ResolverTest, ServesUdpAndTcpAndTellsWhatDoesNotFit) {
  const auto port = resolver_.listen(address_v4::loopback(), 0).value();
  std::string over_udp;
  std::string over_tcp;
  const auto query = dns_question("exists.example", kTxt);
  const auto talk = [&]() -> Awaitable<void> {
    std::vector<char> buffer(4096);
    boost::asio::ip::udp::socket udp(loop_, boost::asio::ip::udp::endpoint(address_v4::loopback(), 0));
    const boost::asio::ip::udp::endpoint server(address_v4::loopback(), port);
    (void)co_await udp.async_send_to(boost::asio::buffer(query), server, kNoThrow);
    const auto [udp_error, got] = co_await udp.async_receive(boost::asio::buffer(buffer), kNoThrow);
    over_udp.assign(buffer.data(), got);
    boost::asio::ip::tcp::socket tcp(loop_);
    const boost::asio::ip::tcp::endpoint tcp_server(address_v4::loopback(), port);
    (void)co_await tcp.async_connect(tcp_server, kNoThrow);
    const std::string framed = std::string(1, '\0') + static_cast<char>(query.size()) + query;
    (void)co_await boost::asio::async_write(tcp, boost::asio::buffer(framed), kNoThrow);
    (void)co_await boost::asio::async_read(tcp, boost::asio::buffer(buffer, 2), kNoThrow);
    const std::size_t size = static_cast<unsigned char>(buffer[0]) * 256U + static_cast<unsigned char>(buffer[1]);
    (void)co_await boost::asio::async_read(tcp, boost::asio::buffer(buffer, size), kNoThrow);
    over_tcp.assign(buffer.data(), size);
    loop_.stop();
  };
  boost::asio::co_spawn(loop_, talk(), boost::asio::detached);
  loop_.run();
  ASSERT_GE(over_udp.size(), 12U);
  EXPECT_EQ(over_udp[2] & 0x02, 0x02) << "TC is set";
  EXPECT_LE(over_udp.size(), 512U);
  EXPECT_GT(over_tcp.size(), 512U);
}

}  // namespace
}  // namespace sbx::guest
