#include "policy/pattern.h"

#include <algorithm>

#include "policy/glob.h"

namespace sbx::policy {
namespace {

constexpr std::size_t kLongestPattern = 512;

std::unexpected<Error> refuse(std::string_view text, const std::string& why) {
  return fail(ErrorCode::kInvalid, "resource " + in_quotes(text) + " is not understood: " + why);
}

std::vector<std::string> split_labels(std::string_view name) {
  std::vector<std::string> labels;
  for (;;) {
    const auto dot = name.find('.');
    labels.emplace_back(name.substr(0, dot));
    if (dot == std::string_view::npos) return labels;
    name.remove_prefix(dot + 1);
  }
}

bool is_literal_byte(char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '_'; }
bool is_glob_byte(char c) { return c == '*' || c == '?' || c == '[' || c == ']' || c == '!'; }

// Numbers and wildcards only: somebody means addresses, which wildcards do not match.
bool looks_like_address(std::string_view name) {
  return name.find_first_of("0123456789") != std::string_view::npos &&
         name.find_first_not_of("0123456789.*?[]!-") == std::string_view::npos;
}

struct HostAndPort {
  std::string_view host;
  std::optional<std::uint16_t> port;
  bool bracketed = false;
};

Result<HostAndPort> split_port(std::string_view text) {
  HostAndPort parts;
  parts.host = text;
  std::string_view port;
  // "[2001:db8::1]:443" begins with a bracket, and so does "[ab].x.com"; only the first holds a colon.
  const auto close = text.find(']');
  parts.bracketed = text.starts_with('[') && close != std::string_view::npos && text.find(':') < close;
  if (parts.bracketed) {
    parts.host = text.substr(1, close - 1);
    port = text.substr(close + 1);
    if (port.empty()) return parts;
    if (!port.starts_with(':')) return refuse(text, "only :PORT may follow the brackets");
    port.remove_prefix(1);
  }
  if (!parts.bracketed) {
    const auto colon = text.find(':');
    if (colon == std::string_view::npos) return parts;
    if (text.find('/') != std::string_view::npos && Network::parse(text)) return parts;  // an IPv6 network
    if (text.find(':', colon + 1) != std::string_view::npos) {
      if (parse_address(text)) return refuse(text, "write an IPv6 address in brackets: [" + std::string(text) + "]");
      return refuse(text, "it has more than one colon; IPv6 goes in brackets, as in [2001:db8::1]:443");
    }
    parts.host = text.substr(0, colon);
    port = text.substr(colon + 1);
  }
  parts.port = parse_port(port);
  if (!parts.port) return refuse(text, "the port must be a number from 1 to 65535");
  return parts;
}

Result<void> check_labels(std::string_view text, const std::vector<std::string>& labels) {
  bool named = false;
  for (const auto& label : labels) {
    if (label.empty()) return refuse(text, "a part between dots is empty");
    if (label.size() > 63) return refuse(text, "a part between dots is longer than 63 bytes");
    if (label.find("**") != std::string::npos)
      return refuse(text, "** stands alone, or alone before the first dot, as in **.example.com");
    for (const char c : label) {
      if (static_cast<unsigned char>(c) >= 0x80) return refuse(text, "write an international name in its xn-- form");
      if (!is_literal_byte(c) && !is_glob_byte(c))
        return refuse(text, "it has a character that no host name has; give a host, not a URL");
    }
    if (!is_valid_glob(label) || (label.find('!') != std::string::npos && label.find("[!") == std::string::npos))
      return refuse(text, "a class is written [12], [a-f] or [!1]");
    named = named || !has_wildcards(label);
  }
  if (!named) return refuse(text, "at least one part between dots must be without wildcards (everything is **)");
  return {};
}

}  // namespace

Result<Pattern> Pattern::parse(std::string_view given) {
  if (given.empty()) return refuse(given, "it is empty");
  if (given.size() > kLongestPattern) return refuse(given, "it is too long");
  if (given.find("://") != std::string_view::npos) return refuse(given, "give a host, not a URL");
  std::string text(given);
  std::ranges::transform(text, text.begin(), [](char c) { return c >= 'A' && c <= 'Z' ? char(c + 32) : c; });
  const HostAndPort parts = SBX_TRY(split_port(text), "reading a resource");
  Pattern pattern;
  pattern.port_ = parts.port;
  const std::string suffix = parts.port ? ":" + std::to_string(*parts.port) : "";

  if (parts.host == "**") {
    pattern.text_ = "**" + suffix;
    return pattern;
  }
  if (parts.host == "*") return refuse(given, "* alone is ambiguous; everything is **");
  if (parts.bracketed || parts.host.find('/') != std::string_view::npos || parse_address(parts.host)) {
    auto network = Network::parse(parts.host);
    if (!network) return refuse(given, network.error().message);
    pattern.kind_ = Kind::kNetwork;
    pattern.text_ = network->text();
    const bool brackets = network->is_v6() && (parts.port || pattern.text_.find('/') == std::string::npos);
    pattern.text_ = (brackets ? "[" + pattern.text_ + "]" : pattern.text_) + suffix;
    pattern.network_ = std::move(*network);
    return pattern;
  }

  std::string_view name = parts.host;
  if (name.ends_with('.')) name.remove_suffix(1);
  if (name.size() > 253) return refuse(given, "a host name has at most 253 bytes");
  if (looks_like_address(name))
    return refuse(given, has_wildcards(name) ? "write addresses as a network, such as 10.0.0.0/8"
                                             : "write the address as four decimal numbers");
  if (name.starts_with("**.")) {
    pattern.any_depth_ = true;
    name.remove_prefix(3);
  }
  pattern.labels_ = split_labels(name);
  SBX_CHECK(check_labels(given, pattern.labels_), "reading a resource");
  pattern.literal_ = !has_wildcards(name);
  pattern.name_ = name;
  pattern.kind_ = Kind::kName;
  if (pattern.literal_) {
    const std::string host = SBX_TRY(canonical_host(name), "reading a resource");
    if (parse_address(host)) return refuse(given, "write the address as four decimal numbers");
    if (host == "localhost") {
      if (pattern.any_depth_) return refuse(given, "the host's services have no subdomains; write localhost:PORT");
      pattern.kind_ = Kind::kHost;
    }
  }
  pattern.text_ = (pattern.any_depth_ ? "**." : "") + pattern.name_ + suffix;
  return pattern;
}

bool Pattern::matches_name(std::string_view name) const {
  if (literal_) {
    if (!any_depth_) return name == name_;
    return name == name_ ||
           (name.size() > name_.size() && name.ends_with(name_) && name[name.size() - name_.size() - 1] == '.');
  }
  // From the right, label by label.
  for (auto label = labels_.rbegin(); label != labels_.rend(); ++label) {
    if (name.empty()) return false;
    const auto dot = name.rfind('.');
    if (!glob_matches(*label, name.substr(dot == std::string_view::npos ? 0 : dot + 1))) return false;
    name = dot == std::string_view::npos ? std::string_view() : name.substr(0, dot);
  }
  return any_depth_ || name.empty();
}

}  // namespace sbx::policy
