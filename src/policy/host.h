// Host names and where a request goes. Every name that policy compares, and every name that is dialled, went through
// canonical_host(), so that a check and what is enforced cannot differ in spelling. Pure.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"

namespace sbx::policy {

enum class Protocol { kTcp, kUdp };

struct Target {
  std::string host;  // as canonical_host() gives it; anything else is made so before it is judged
  std::uint16_t port = 443;
  Protocol protocol = Protocol::kTcp;
  // Of an HTTP request, as sent (the path with its query). Without a method only the connection is judged.
  std::optional<std::string> method;
  std::optional<std::string> path;
};

// A lower-case name without its trailing dot, or the plain text of an IP address: brackets are taken off, IPv4-mapped
// IPv6 and the spellings that resolvers accept ("127.1", "0x7f.1", "2130706433") become the dotted quad.
// "host.docker.internal" becomes "localhost": both are the host's loopback. kInvalid: empty, longer than 253 bytes,
// bytes that no host name has (write international names in their xn-- form), zones, numbers that are no address.
Result<std::string> canonical_host(std::string_view text);

// What a person writes for `policy check`: HOST, HOST:PORT, an address, [IPv6]:PORT or a URL. Without a port 443, or
// that of the URL's scheme.
Result<Target> parse_target(std::string_view text);

// "443"; 1 to 65535, digits only.
std::optional<std::uint16_t> parse_port(std::string_view text);
// For messages: in double quotes, unprintable bytes as \xNN, cut to a length that fits a line.
std::string in_quotes(std::string_view text);

}  // namespace sbx::policy
