#include "policy/address.h"

#include <gtest/gtest.h>

#include "rapidcheck/gtest.h"

namespace sbx::policy {
namespace {

std::string what(const std::string& text) {
  const auto address = parse_address(text);
  if (!address) return "not an address";
  const SpecialRange* range = special_range(*address);
  return range == nullptr ? "" : std::string(range->what);
}

TEST(Address, KnowsEverySpecialRangeInEverySpelling) {
  for (const char* text : {"127.0.0.1", "127.255.255.254", "::1", "::ffff:127.0.0.1", "64:ff9b::127.0.0.1",
                           "::127.0.0.1", "::ffff:0:127.0.0.1"})
    EXPECT_EQ(what(text), "the host's loopback") << text;
  for (const char* text : {"169.254.169.254", "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe", "fd00:ec2::254",
                           "168.63.129.16", "100.100.100.200", "169.254.170.2"})
    EXPECT_EQ(what(text), "a cloud metadata address") << text;
  for (const char* text : {"10.0.0.1", "10.255.255.255", "172.16.0.1", "172.31.255.255", "192.168.1.1", "fd12::1",
                           "fc00::", "::ffff:10.1.2.3", "64:ff9b::10.1.2.3"})
    EXPECT_EQ(what(text), "a private address") << text;
  for (const char* text : {"169.254.1.1", "fe80::1", "febf::1"}) EXPECT_EQ(what(text), "a link-local address") << text;
  for (const char* text : {"0.0.0.0", "0.1.2.3", "::"}) EXPECT_EQ(what(text), "the unspecified address") << text;
  for (const char* text : {"224.0.0.1", "239.1.1.1", "ff02::1"}) EXPECT_EQ(what(text), "a multicast address") << text;
  EXPECT_EQ(what("100.64.0.1"), "a carrier's shared address");
  EXPECT_EQ(what("198.18.0.1"), "a sandbox's own address");
  EXPECT_EQ(what("198.19.255.255"), "a sandbox's own address");
  for (const char* text : {"240.0.0.1", "255.255.255.255", "64:ff9b:1::1", "100::1"})
    EXPECT_EQ(what(text), "a reserved address") << text;
  for (const char* text : {"2002:7f00:1::", "2001:0:1::"}) EXPECT_EQ(what(text), "a tunnel's address") << text;
}

TEST(Address, LeavesNeighboursOfSpecialRangesAlone) {
  for (const char* text :
       {"9.255.255.255", "11.0.0.0", "172.15.255.255", "172.32.0.0", "192.167.255.255", "128.0.0.0", "126.255.255.255",
        "169.253.255.255", "169.255.0.0", "100.63.255.255", "100.128.0.0", "198.17.255.255", "198.20.0.0",
        "223.255.255.255", "2606:4700::1111", "64:ff9b::8.8.8.8", "2001:4860:4860::8888", "fb00::1"})
    EXPECT_EQ(what(text), "") << text;
}

TEST(Address, ReadsWhatResolversRead) {
  for (const char* text : {"127.1", "127.0.1", "0x7f.1", "0x7f000001", "2130706433", "017700000001", "0177.0.0.01"}) {
    const auto address = parse_resolver_ipv4(text);
    ASSERT_TRUE(address) << text;
    EXPECT_EQ(address->to_string(), "127.0.0.1") << text;
  }
  for (const char* text : {"", "1.2.3.4.5", "256.1.1.1", "1.2.3.256", "4294967296", "08.1.1.1", "0xg", "1..2",
                           "1.2.65536", "-1", "99999999999999999999999"})
    EXPECT_FALSE(parse_resolver_ipv4(text)) << text;
}

TEST(Network, RefusesBitsBeyondThePrefixAndSaysWhatIsMeant) {
  const auto network = Network::parse("10.1.2.3/8");
  ASSERT_FALSE(network);
  EXPECT_NE(network.error().message.find("10.0.0.0/8"), std::string::npos) << network.error().message;
  for (const char* text :
       {"10.0.0.0/33", "10.0.0.0/", "10.0.0.0/-1", "::/129", "fe80::1%lo", "10.0.0/8", "x", "", "/8"})
    EXPECT_FALSE(Network::parse(text)) << text;
}

TEST(Network, TreatsMappedIpv6AsIpv4) {
  const auto network = Network::parse("::ffff:10.0.0.0/104");
  ASSERT_TRUE(network);
  EXPECT_EQ(network->text(), "10.0.0.0/8");
  EXPECT_TRUE(network->contains(*parse_address("10.9.9.9")));
  EXPECT_FALSE(Network::parse("::/0")->contains(*parse_address("10.9.9.9")));
}

RC_GTEST_PROP(Network, HoldsExactlyTheAddressesThatShareItsPrefix, ()) {
  const auto base = *rc::gen::arbitrary<std::uint32_t>();
  const auto other = *rc::gen::arbitrary<std::uint32_t>();
  const auto prefix = *rc::gen::inRange(0, 33);
  const std::uint32_t mask = prefix == 0 ? 0 : 0xffffffffU << (32 - prefix);
  const auto network =
      Network::parse(boost::asio::ip::address_v4(base & mask).to_string() + "/" + std::to_string(prefix));
  RC_ASSERT(network.has_value());
  RC_ASSERT(network->contains(boost::asio::ip::address_v4(base)));
  RC_ASSERT(network->contains(boost::asio::ip::address_v4(other)) == ((other & mask) == (base & mask)));
}

}  // namespace
}  // namespace sbx::policy
