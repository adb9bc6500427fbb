#include "guest/dns_message.h"

#include <gtest/gtest.h>

namespace sbx::guest {
namespace {

using namespace std::string_literals;

std::string query_for(std::string_view name, std::uint16_t type) {
  auto message = dns_question(name, type);
  message[0] = '\x12';
  message[1] = '\x34';
  return message;
}

TEST(DnsMessage, ReadsAQueryAndKeepsTheSpellingOfItsQuestion) {
  const auto query = parse_dns_query(query_for("ExAmple.COM", kDnsA));
  ASSERT_TRUE(query) << query.error().describe();
  EXPECT_EQ(query->id, 0x1234);
  EXPECT_EQ(query->name, "example.com");
  EXPECT_EQ(query->type, kDnsA);
  EXPECT_NE(query->question.find("ExAmple"), std::string::npos);
  EXPECT_EQ(query->largest_answer, 512U);
}

TEST(DnsMessage, ReadsTheSizeThatAClientTakes) {
  auto message = query_for("example.com", kDnsA);
  message[11] = 1;  // one additional record: OPT of 1232 bytes
  message += "\0\0\x29\x04\xd0\0\0\0\0\0\0"s;
  EXPECT_EQ(parse_dns_query(message).value().largest_answer, 1232U);
}

TEST(DnsMessage, RefusesWhatIsNoQueryForANameThatAHostCanHave) {
  const auto good = query_for("a.example", kDnsA);
  for (std::size_t size = 0; size < good.size(); ++size) EXPECT_FALSE(parse_dns_query(good.substr(0, size))) << size;
  auto answer = good;
  answer[2] = '\x80';
  EXPECT_FALSE(parse_dns_query(answer));
  auto two = good;
  two[5] = 2;
  EXPECT_FALSE(parse_dns_query(two));
  for (const char bad : {'\r', '\n', ' ', ':', '/', '@', '\0', '\x80', '.'}) {
    auto message = good;
    message[13] = bad;  // the letter a
    EXPECT_FALSE(parse_dns_query(message)) << static_cast<int>(bad);
  }
  auto compressed = good;
  compressed[12] = '\xc0';
  EXPECT_FALSE(parse_dns_query(compressed));
}

TEST(DnsMessage, AnAnswerCanBeJudged) {
  const auto query = parse_dns_query(query_for("example.com", kDnsA)).value();
  const auto found = judge_dns_answer(dns_answer(query, DnsCode::kNoError, {{kDnsA, 30, "\x7f\0\0\x01"s}}));
  ASSERT_TRUE(found);
  EXPECT_TRUE(found->has_address);
  const auto missing = judge_dns_answer(dns_answer(query, DnsCode::kNoSuchName)).value();
  EXPECT_EQ(missing.code, DnsCode::kNoSuchName);
  EXPECT_FALSE(missing.has_address);
  const auto other = judge_dns_answer(dns_answer(query, DnsCode::kNoError, {{16, 30, "\x02hi"s}})).value();
  EXPECT_FALSE(other.has_address);
}

TEST(DnsMessage, AnAnswerThatEndsInTheMiddleIsRefused) {
  const auto query = parse_dns_query(query_for("example.com", kDnsA)).value();
  const auto answer = dns_answer(query, DnsCode::kNoError, {{kDnsA, 30, "\x7f\0\0\x01"s}});
  for (std::size_t size = 0; size < answer.size(); ++size) EXPECT_FALSE(judge_dns_answer(answer.substr(0, size)));
}

TEST(DnsMessage, ReadsReverseNames) {
  EXPECT_EQ(address_of_reverse_name("7.1.18.198.in-addr.arpa").value(), 198U << 24U | 18U << 16U | 1U << 8U | 7U);
  for (const char* name : {"1.18.198.in-addr.arpa", "256.1.18.198.in-addr.arpa", "1.2.3.4.5.in-addr.arpa",
                           "example.com", "a.b.c.d.in-addr.arpa", "in-addr.arpa"}) {
    EXPECT_FALSE(address_of_reverse_name(name)) << name;
  }
}

TEST(DnsMessage, KnowsWhatANameMayBe) {
  EXPECT_TRUE(valid_dns_name("a-b_c.example.com"));
  for (const std::string& bad :
       {""s, "."s, "a."s, ".a"s, "a..b"s, "a b"s, "a:1"s, std::string(64, 'a'), "a"s + std::string(260, 'b')}) {
    EXPECT_FALSE(valid_dns_name(bad)) << bad;
    EXPECT_EQ(dns_wire_name(bad), "");
  }
  EXPECT_EQ(dns_wire_name("ab.c"),
            "\x02"
            "ab"
            "\x01"
            "c\0"s);
}

}  // namespace
}  // namespace sbx::guest
