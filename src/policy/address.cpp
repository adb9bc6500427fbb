#include "policy/address.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <vector>

namespace sbx::policy {
namespace {

namespace ip = boost::asio::ip;

bool is_digit(char c) { return c >= '0' && c <= '9'; }

// One part of inet_aton's notation: decimal, octal with a leading 0, hexadecimal with 0x.
std::optional<std::uint64_t> resolver_number(std::string_view part) {
  int base = 10;
  if (part.size() > 1 && part[0] == '0' && (part[1] == 'x' || part[1] == 'X')) {
    base = 16;
    part.remove_prefix(2);
    if (part.empty()) return 0;
  } else if (part.size() > 1 && part[0] == '0') {
    base = 8;
  }
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(part.data(), part.data() + part.size(), value, base);
  if (error != std::errc() || end != part.data() + part.size()) return std::nullopt;
  return value;
}

std::array<unsigned char, 16> bytes_of(const Address& address) {
  std::array<unsigned char, 16> bytes{};
  if (address.is_v4())
    std::ranges::copy(address.to_v4().to_bytes(), bytes.begin());
  else
    bytes = address.to_v6().to_bytes();
  return bytes;
}

bool same_prefix(const Address& a, const Address& b, unsigned bits) {
  const auto left = bytes_of(a);
  const auto right = bytes_of(b);
  for (unsigned i = 0; i < bits; i += 8) {
    const unsigned rest = std::min(8U, bits - i);
    const auto mask = static_cast<unsigned char>(0xff00U >> rest);
    if (((left[i / 8] ^ right[i / 8]) & mask) != 0) return false;
  }
  return true;
}

}  // namespace

std::optional<Address> parse_address(std::string_view text) {
  if (text.find('%') != std::string_view::npos || text.size() > 64) return std::nullopt;
  boost::system::error_code error;
  const auto address = ip::make_address(std::string(text), error);
  if (error) return std::nullopt;
  return unmapped(address);
}

std::optional<Address> parse_resolver_ipv4(std::string_view text) {
  std::vector<std::uint64_t> parts;
  for (;;) {
    const auto dot = text.find('.');
    const auto number = resolver_number(text.substr(0, dot));
    if (!number || parts.size() == 4) return std::nullopt;
    parts.push_back(*number);
    if (dot == std::string_view::npos) break;
    text.remove_prefix(dot + 1);
  }
  // All parts but the last are one byte; the last fills what is left.
  std::uint64_t value = 0;
  for (std::size_t i = 0; i + 1 < parts.size(); ++i) {
    if (parts[i] > 0xff) return std::nullopt;
    value |= parts[i] << (24 - 8 * i);
  }
  const std::uint64_t room = std::uint64_t{1} << (32 - 8 * (parts.size() - 1));
  if (parts.back() >= room) return std::nullopt;
  return ip::address_v4(static_cast<std::uint32_t>(value | parts.back()));
}

Address unmapped(const Address& address) {
  if (address.is_v6()) {
    const auto v6 = address.to_v6();
    if (v6.is_v4_mapped()) return ip::make_address_v4(ip::v4_mapped, v6);
    if (v6.scope_id() != 0) return ip::address_v6(v6.to_bytes());
  }
  return address;
}

std::optional<Address> embedded_ipv4(const Address& address) {
  if (!address.is_v6()) return std::nullopt;
  static const std::array kPrefixes = {*Network::parse("64:ff9b::/96"), *Network::parse("::ffff:0:0:0/96"),
                                       *Network::parse("::/96")};
  if (std::ranges::none_of(kPrefixes, [&](const Network& prefix) { return prefix.contains(address); }))
    return std::nullopt;
  const auto bytes = address.to_v6().to_bytes();
  return ip::address_v4(ip::address_v4::bytes_type{bytes[12], bytes[13], bytes[14], bytes[15]});
}

Result<Network> Network::parse(std::string_view text) {
  const auto slash = text.find('/');
  const std::string_view base_text = text.substr(0, slash);
  boost::system::error_code error;
  const bool has_zone = base_text.find('%') != std::string_view::npos;
  const auto base = ip::make_address(std::string(base_text), error);
  if (error || has_zone) return fail(ErrorCode::kInvalid, "not an IP address or network");
  const unsigned most = base.is_v4() ? 32 : 128;
  unsigned prefix = most;
  if (slash != std::string_view::npos) {
    const std::string_view digits = text.substr(slash + 1);
    const auto [end, wrong] = std::from_chars(digits.data(), digits.data() + digits.size(), prefix);
    if (digits.empty() || !std::ranges::all_of(digits, is_digit) || wrong != std::errc() ||
        end != digits.data() + digits.size() || prefix > most) {
      return fail(ErrorCode::kInvalid, "the network's prefix must be a number from 0 to " + std::to_string(most));
    }
  }
  Network network(base, prefix);
  auto bytes = bytes_of(base);
  for (unsigned bit = prefix; bit < most; ++bit)
    bytes[bit / 8] = static_cast<unsigned char>(bytes[bit / 8] & ~(0x80U >> (bit % 8)));
  if (bytes != bytes_of(base)) {
    const Address clean =
        base.is_v4() ? Address(ip::address_v4(ip::address_v4::bytes_type{bytes[0], bytes[1], bytes[2], bytes[3]}))
                     : Address(ip::address_v6(bytes));
    return fail(ErrorCode::kInvalid, "the network has bits beyond its prefix; write " + clean.to_string() + "/" +
                                         std::to_string(prefix) + ", or the address alone");
  }
  if (base.is_v6() && base.to_v6().is_v4_mapped() && prefix >= 96) return Network(unmapped(base), prefix - 96);
  return network;
}

bool Network::contains(const Address& given) const {
  const Address address = unmapped(given);
  return address.is_v6() == base_.is_v6() && same_prefix(base_, address, prefix_);
}

bool Network::contains(const Network& inner) const { return inner.prefix_ >= prefix_ && contains(inner.base_); }

std::string Network::text() const {
  const bool whole = prefix_ == (base_.is_v4() ? 32U : 128U);
  return base_.to_string() + (whole ? "" : "/" + std::to_string(prefix_));
}

const SpecialRange* special_range(const Address& given) {
  // IANA's special-purpose registries (RFC 6890 and its updates), without the documentation ranges, which lead nowhere;
  // and the clouds' metadata addresses, which answer anybody on the machine with credentials. Narrow before wide.
  static const auto kRanges = [] {
    std::vector<SpecialRange> ranges;
    const auto add = [&](std::string_view what, std::initializer_list<std::string_view> networks) {
      for (const auto network : networks) {
        const bool loopback = what.ends_with("loopback") || what.ends_with("unspecified address");
        ranges.push_back({*Network::parse(network), what, loopback});
      }
    };
    add("a cloud metadata address",
        {"169.254.169.254", "169.254.169.253", "169.254.170.2", "169.254.170.23", "168.63.129.16", "100.100.100.200",
         "192.0.0.192", "fd00:ec2::254", "fd00:ec2::23", "fd00:ec2::253", "fd20:ce::254"});
    add("the host's loopback", {"127.0.0.0/8", "::1"});
    add("the unspecified address", {"0.0.0.0/8", "::"});
    add("a private address", {"10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7", "fec0::/10"});
    add("a link-local address", {"169.254.0.0/16", "fe80::/10"});
    add("a carrier's shared address", {"100.64.0.0/10"});
    add("a sandbox's own address", {"198.18.0.0/15"});
    add("a multicast address", {"224.0.0.0/4", "ff00::/8"});
    add("a reserved address", {"192.0.0.0/24", "192.88.99.0/24", "240.0.0.0/4", "100::/64", "64:ff9b:1::/48"});
    add("a tunnel's address", {"2001::/32", "2002::/16"});
    return ranges;
  }();
  const Address address = unmapped(given);
  for (const auto& range : kRanges) {
    if (range.network.contains(address)) return &range;
  }
  if (const auto inner = embedded_ipv4(address)) return special_range(*inner);
  return nullptr;
}

}  // namespace sbx::policy
