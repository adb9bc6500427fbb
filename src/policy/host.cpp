#include "policy/host.h"

#include <algorithm>
#include <charconv>

#include "policy/address.h"

namespace sbx::policy {
namespace {

constexpr std::size_t kLongestName = 253;  // RFC 1035, section 2.3.4, as text without the final dot
constexpr std::size_t kLongestLabel = 63;

bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_hex_digit(char c) { return is_digit(c) || (c >= 'a' && c <= 'f'); }
bool is_name_byte(char c) { return is_digit(c) || (c >= 'a' && c <= 'z') || c == '-' || c == '_'; }

std::unexpected<Error> refuse(std::string_view text, const std::string& why) {
  return fail(ErrorCode::kInvalid, in_quotes(text) + " is not a host name: " + why);
}

// A name whose last label is a number is an IPv4 address to every resolver (WHATWG URL, "ends in a number").
bool ends_in_number(std::string_view name) {
  const std::string_view last = name.substr(name.rfind('.') + 1);
  if (!last.empty() && std::ranges::all_of(last, is_digit)) return true;
  return last.starts_with("0x") && std::ranges::all_of(last.substr(2), is_hex_digit);
}

}  // namespace

std::string in_quotes(std::string_view text) {
  constexpr std::size_t kShown = 120;
  static constexpr char kHex[] = "0123456789abcdef";
  std::string out = "\"";
  for (const char c : text.substr(0, kShown)) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte >= 0x7f || c == '"' || c == '\\') {
      out += "\\x";
      out += kHex[byte >> 4U];
      out += kHex[byte & 0xfU];
    } else {
      out += c;
    }
  }
  return out + (text.size() > kShown ? "…\"" : "\"");
}

std::optional<std::uint16_t> parse_port(std::string_view text) {
  std::uint16_t port = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), port);
  if (text.empty() || text.size() > 5 || error != std::errc() || end != text.data() + text.size() || port == 0)
    return std::nullopt;
  return port;
}

Result<std::string> canonical_host(std::string_view text) {
  std::string_view rest = text;
  if (rest.starts_with('[') && rest.ends_with(']') && rest.find(':') != std::string_view::npos) {
    rest = rest.substr(1, rest.size() - 2);
    if (!parse_address(rest)) return refuse(text, "the brackets hold no IPv6 address");
  }
  if (const auto address = parse_address(rest)) return address->to_string();
  if (rest.ends_with('.')) rest.remove_suffix(1);
  if (rest.empty()) return refuse(text, "it is empty");
  if (rest.size() > kLongestName) return refuse(text, "it is longer than 253 bytes");
  std::string name(rest);
  for (char& c : name) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
    if (!is_name_byte(c) && c != '.') {
      return refuse(text, static_cast<unsigned char>(c) >= 0x80 ? "write an international name in its xn-- form"
                                                                : "it has a character that no host name has");
    }
  }
  for (std::size_t begin = 0; begin <= name.size();) {
    const std::size_t end = std::min(name.find('.', begin), name.size());
    if (end == begin) return refuse(text, "a part between dots is empty");
    if (end - begin > kLongestLabel) return refuse(text, "a part between dots is longer than 63 bytes");
    begin = end + 1;
  }
  if (ends_in_number(name)) {
    const auto address = parse_resolver_ipv4(name);
    if (!address) return refuse(text, "it ends in a number, but is no IPv4 address");
    return address->to_string();
  }
  if (name == "host.docker.internal") return std::string("localhost");
  return name;
}

Result<Target> parse_target(std::string_view text) {
  Target target;
  std::string_view rest = text;
  if (const auto scheme_end = rest.find("://"); scheme_end != std::string_view::npos) {
    std::string scheme(rest.substr(0, scheme_end));
    std::ranges::transform(scheme, scheme.begin(), [](char c) { return c >= 'A' && c <= 'Z' ? char(c + 32) : c; });
    if (scheme == "http" || scheme == "ws")
      target.port = 80;
    else if (scheme != "https" && scheme != "wss")
      return fail(ErrorCode::kInvalid, "cannot check " + in_quotes(text) + ": the URL's scheme must be http or https");
    rest.remove_prefix(scheme_end + 3);
    rest = rest.substr(0, rest.find_first_of("/?#\\"));
    if (const auto at = rest.rfind('@'); at != std::string_view::npos) rest.remove_prefix(at + 1);
  }
  std::string_view host = rest;
  const auto colon = rest.rfind(':');
  const auto bracket = rest.rfind(']');
  // A bare IPv6 address has colons, none of which begins a port.
  const bool has_port =
      colon != std::string_view::npos && !parse_address(rest) && (bracket == std::string_view::npos || bracket < colon);
  if (has_port) {
    const auto port = parse_port(rest.substr(colon + 1));
    if (!port) return fail(ErrorCode::kInvalid, "the port of " + in_quotes(text) + " must be a number from 1 to 65535");
    target.port = *port;
    host = rest.substr(0, colon);
  }
  target.host = SBX_TRY(canonical_host(host), "reading the target");
  return target;
}

}  // namespace sbx::policy
