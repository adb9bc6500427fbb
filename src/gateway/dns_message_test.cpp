#include "gateway/dns_message.h"

#include <arpa/nameser.h>
#include <gtest/gtest.h>
#include <resolv.h>

namespace sbx::gateway {
namespace {

std::string query(const std::string& name, int type) {
  std::string buffer(512, '\0');
  struct __res_state state {};
  res_ninit(&state);
  const int size = res_nmkquery(&state, ns_o_query, name.c_str(), ns_c_in, type, nullptr, 0, nullptr,
                                reinterpret_cast<unsigned char*>(buffer.data()), buffer.size());
  res_nclose(&state);
  EXPECT_GT(size, 0);
  buffer.resize(static_cast<std::size_t>(size));
  return buffer;
}

TEST(DnsMessage, AQueryOfTheCLibraryIsRead) {
  const auto question = parse_dns_query(query("Www.Example.COM", ns_t_a));
  ASSERT_TRUE(question) << question.error().describe();
  EXPECT_EQ(question->name, "www.example.com");
  EXPECT_EQ(question->type, DnsType::kA);
  EXPECT_TRUE(question->recursion_desired);
}

TEST(DnsMessage, TheCLibraryReadsTheAnswer) {
  const auto question = parse_dns_query(query("www.example.com", ns_t_a)).value();
  const auto answer =
      write_dns_answer(question, DnsCode::kNoError, {address_record(0xc0000201, 30), address_record(0xc0000202, 30)});
  ns_msg message;
  ASSERT_EQ(ns_initparse(reinterpret_cast<const unsigned char*>(answer.data()), answer.size(), &message), 0);
  EXPECT_EQ(ns_msg_id(message), question.id);
  ASSERT_EQ(ns_msg_count(message, ns_s_an), 2);
  ns_rr record;
  ASSERT_EQ(ns_parserr(&message, ns_s_an, 1, &record), 0);
  EXPECT_STREQ(ns_rr_name(record), "www.example.com");
  EXPECT_EQ(ns_get32(ns_rr_rdata(record)), 0xc0000202U);
}

TEST(DnsMessage, AnAnswerThatIsTooLongIsCutAndSaysSo) {
  const auto question = parse_dns_query(query("www.example.com", ns_t_a)).value();
  const auto answer =
      write_dns_answer(question, DnsCode::kNoError, std::vector<DnsRecord>(100, address_record(0xc0000201, 30)));
  EXPECT_LE(answer.size(), 512U);
  EXPECT_NE(answer[2] & 0x02, 0);
}

TEST(DnsMessage, OddQueriesAreRefused) {
  const auto good = query("www.example.com", ns_t_a);
  ASSERT_TRUE(parse_dns_query(good));
  const auto changed = [&](std::size_t at, char value) {
    auto bytes = good;
    bytes[at] = value;
    return bytes;
  };
  for (const auto& bad : {
           std::string(), good.substr(0, 11), good.substr(0, good.size() - 1), good + "x",
           changed(2, '\x80'),                                                          // a response
           changed(2, '\x28'),                                                          // another opcode
           changed(5, '\2'), changed(5, '\0'),                                          // questions
           changed(7, '\1'), changed(9, '\1'), changed(11, '\1'), changed(12, '\xc0'),  // compression
           changed(12, '\x40'), changed(13, '\0'), changed(13, ' '), changed(13, '.'), changed(12, '\x3f'),
           changed(good.size() - 1, '\3'),  // class CH
       }) {
    EXPECT_FALSE(parse_dns_query(bad));
  }
}

TEST(DnsMessage, NamesOfRepliesAreWrittenOut) {
  // MX of "a.b": 10 mail.a.b, its name compressed.
  std::string reply("\0\1\x81\x80\0\1\0\1\0\0\0\0\1a\1b\0\0\x0f\0\1", 21);
  reply += std::string("\xc0\x0c\0\x0f\0\1\0\0\0\x3c\0\x09\0\x0a\4mail\xc0\x0c", 21);
  const auto records = parse_dns_records(reply, DnsType::kMx);
  ASSERT_EQ(records.size(), 1U);
  EXPECT_EQ(records[0].data, std::string("\0\x0a\4mail\1a\1b\0", 12));
  EXPECT_EQ(records[0].ttl, 60U);
}

TEST(DnsMessage, APointerThatLeadsForwardsOrToItselfIsLeftOut) {
  for (const char target : {'\x23', '\x28', '\x29', '\xff'}) {
    std::string reply("\0\1\x81\x80\0\1\0\1\0\0\0\0\1a\1b\0\0\x0f\0\1", 21);
    reply += std::string("\xc0\x0c\0\x0f\0\1\0\0\0\x3c\0\x09\0\x0a\4mail\xc0", 20) + target;
    EXPECT_TRUE(parse_dns_records(reply, DnsType::kMx).empty());
  }
}

}  // namespace
}  // namespace sbx::gateway
