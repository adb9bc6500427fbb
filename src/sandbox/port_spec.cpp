#include "sandbox/port_spec.h"

#include <arpa/inet.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <optional>

namespace sbx::sandbox {
namespace {

struct Parts {
  std::string host_ip;
  std::optional<std::string> host_port;
  std::string sandbox_port;
  std::string protocol;
};

std::unexpected<Error> wrong(const std::string& text, const std::string& what) {
  return fail(ErrorCode::kInvalid,
              "port \"" + text + "\": " + what +
                  "; it is written [[HOST_IP:]HOST_PORT:]SANDBOX_PORT[/tcp|/udp], such as 8080:3000");
}

// From the right, since an IPv6 address may come first.
Parts split(std::string text) {
  Parts parts;
  if (const auto slash = text.rfind('/'); slash != std::string::npos) {
    parts.protocol = text.substr(slash + 1);
    text.resize(slash);
  }
  const auto last = text.rfind(':');
  parts.sandbox_port = last == std::string::npos ? text : text.substr(last + 1);
  if (last == std::string::npos) return parts;
  text.resize(last);
  const auto before = text.ends_with(']') ? std::string::npos : text.rfind(':');
  if (before == std::string::npos && (text.starts_with('[') || text.find('.') != std::string::npos)) {
    parts.host_ip = text;  // HOST_IP::SANDBOX_PORT without the empty part in between
    parts.host_port = "";
    return parts;
  }
  parts.host_port = before == std::string::npos ? text : text.substr(before + 1);
  if (before != std::string::npos) parts.host_ip = text.substr(0, before);
  return parts;
}

std::optional<std::int64_t> port_number(const std::string& text) {
  std::int64_t port = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), port);
  if (error != std::errc{} || end != text.data() + text.size() || port < 1 || port > 65'535) return std::nullopt;
  return port;
}

// As inet_ntop(3) writes it; empty if it is none.
std::string canonical_address(std::string text) {
  if (text.starts_with('[') && text.ends_with(']')) text = text.substr(1, text.size() - 2);
  std::array<unsigned char, 16> bytes{};
  std::array<char, INET6_ADDRSTRLEN> buffer{};
  for (const int family : {AF_INET, AF_INET6}) {
    if (::inet_pton(family, text.c_str(), bytes.data()) == 1)
      return ::inet_ntop(family, bytes.data(), buffer.data(), buffer.size());
  }
  return "";
}

bool is_v6(const std::string& address) { return address.find(':') != std::string::npos; }

}  // namespace

Result<PortSpec> parse_port_spec(const std::string& text) {
  const Parts parts = split(text);
  PortSpec spec;
  spec.text = text;
  const auto sandbox_port = port_number(parts.sandbox_port);
  if (!sandbox_port) return wrong(text, "\"" + parts.sandbox_port + "\" is not a port from 1 to 65535");
  spec.sandbox_port = *sandbox_port;
  if (parts.host_port && !parts.host_port->empty() && *parts.host_port != "0") {
    const auto host_port = port_number(*parts.host_port);
    if (!host_port) return wrong(text, "\"" + *parts.host_port + "\" is not a port from 1 to 65535");
    spec.host_port = *host_port;
  }
  std::string address;
  if (!parts.host_ip.empty()) {
    address = canonical_address(parts.host_ip);
    if (address.empty()) return wrong(text, "\"" + parts.host_ip + "\" is not an address");
  }
  std::string protocol = parts.protocol;
  if (protocol.empty()) protocol = is_v6(address) ? "tcp6" : "tcp4";
  spec.protocol = protocol.substr(0, 3);
  const std::string family = protocol.substr(std::min<std::size_t>(3, protocol.size()));
  if ((spec.protocol != "tcp" && spec.protocol != "udp") || (!family.empty() && family != "4" && family != "6"))
    return wrong(text, "\"" + protocol + "\" is not tcp, tcp4, tcp6, udp, udp4 or udp6");
  if (!address.empty()) {
    if (!family.empty() && is_v6(address) != (family == "6"))
      return wrong(text, "the address " + address + " is not one of " + protocol);
    spec.host_ips = {address};
    return spec;
  }
  if (family != "6") spec.host_ips.emplace_back("127.0.0.1");
  if (family != "4") spec.host_ips.emplace_back("::1");
  spec.second_is_optional = spec.host_ips.size() > 1;
  return spec;
}

Result<std::vector<store::PublishedPort>> ports_to_withdraw(const std::string& text,
                                                            const std::vector<store::PublishedPort>& published) {
  const auto spec = SBX_TRY(parse_port_spec(text), "reading the port");
  const Parts parts = split(text);
  const bool family_given = parts.protocol.ends_with('4') || parts.protocol.ends_with('6');
  std::vector<store::PublishedPort> found;
  for (const auto& port : published) {
    if (port.sandbox_port != spec.sandbox_port || port.protocol != spec.protocol) continue;
    if (spec.host_port != 0 && port.host_port != spec.host_port) continue;
    const bool address_matters = !parts.host_ip.empty() || family_given;
    if (address_matters && std::ranges::find(spec.host_ips, port.host_ip) == spec.host_ips.end()) continue;
    found.push_back(port);
  }
  if (found.empty()) return fail(ErrorCode::kNotFound, "port " + text + " is not published; 'sbx ports' lists what is");
  return found;
}

}  // namespace sbx::sandbox
