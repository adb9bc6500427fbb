// IP addresses and networks as policy sees them. IPv4-mapped IPv6 (::ffff:a.b.c.d) is IPv4 everywhere, since that is
// where a connection to it goes. Pure.
#pragma once

#include <boost/asio/ip/address.hpp>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"

namespace sbx::policy {

using Address = boost::asio::ip::address;

// A dotted quad or an IPv6 address without brackets; no zone. Nothing else: "127.1" is not one here.
std::optional<Address> parse_address(std::string_view text);
// What inet_aton(3), and so every resolver, makes of "127.1", "0x7f.1", "017700000001" or "2130706433".
std::optional<Address> parse_resolver_ipv4(std::string_view text);
Address unmapped(const Address& address);
// The IPv4 address that a translator or tunnel would take the packets to: NAT64 (64:ff9b::/96), IPv4-translated
// (::ffff:0:a.b.c.d), IPv4-compatible (::a.b.c.d).
std::optional<Address> embedded_ipv4(const Address& address);

class Network {
 public:
  // "10.0.0.0/8", "2001:db8::/32", or an address alone. Bits beyond the prefix are refused (kInvalid).
  static Result<Network> parse(std::string_view text);
  bool contains(const Address& address) const;
  bool contains(const Network& inner) const;
  bool is_v6() const { return base_.is_v6(); }
  std::string text() const;

 private:
  Network(Address base, unsigned prefix) : base_(std::move(base)), prefix_(prefix) {}
  Address base_;  // unmapped
  unsigned prefix_;
};

// A range that no sandbox reaches unless a rule names an address or network within it.
struct SpecialRange {
  Network network;
  std::string_view what;  // "a private address", for reasons
  bool loopback = false;  // leads to the host itself, as 0.0.0.0 does
};
// The narrowest range that holds the address (or the IPv4 address that is embedded in it), else null.
const SpecialRange* special_range(const Address& address);

}  // namespace sbx::policy
