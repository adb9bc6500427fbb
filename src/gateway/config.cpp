#include "gateway/config.h"

#include <algorithm>
#include <charconv>
#include <nlohmann/json.hpp>
#include <set>

namespace sbx::gateway {

using nlohmann::json;

namespace {

std::string text_of(const json& object, const char* key) {
  const auto found = object.find(key);
  return found != object.end() && found->is_string() ? found->get<std::string>() : std::string();
}

// The parser's copies of what may be secret.
void wipe_strings(json& value) {
  if (value.is_string()) wipe(value.get_ref<std::string&>());
  if (value.is_structured()) {
    for (auto& item : value) wipe_strings(item);
  }
}

struct WipingJson {
  json value;
  ~WipingJson() { wipe_strings(value); }
};

std::vector<std::string> split_list(const std::string& text) {
  std::vector<std::string> words;
  std::string word;
  for (const char c : text + ",") {
    if (c != ',' && c != ' ') {
      word.push_back(static_cast<char>(std::tolower(static_cast<unsigned char>(c))));
      continue;
    }
    if (!word.empty()) words.push_back(std::exchange(word, {}));
  }
  return words;
}

Result<std::string> percent_decoded(std::string_view text) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '%') {
      out.push_back(text[i]);
      continue;
    }
    unsigned value = 0;
    const auto* digits = text.data() + i + 1;
    if (i + 2 >= text.size() || std::from_chars(digits, digits + 2, value, 16).ptr != digits + 2) {
      return fail(ErrorCode::kInvalid, "a % that is not followed by two hexadecimal digits");
    }
    out.push_back(static_cast<char>(value));
    i += 2;
  }
  return out;
}

// SCHEME://[USER[:PASSWORD]@]HOST[:PORT][/]
Result<UpstreamProxy> parse_proxy_url(std::string_view url) {
  UpstreamProxy proxy;
  const auto scheme = url.substr(0, std::min(url.find("://"), url.size()));
  if (scheme == "http") {
    proxy.port = 3128;
  } else if (scheme == "socks5" || scheme == "socks5h") {
    proxy.kind = UpstreamProxy::Kind::kSocks5;
    proxy.port = 1080;
  } else {
    return fail(ErrorCode::kInvalid, "its scheme is none of http, socks5 and socks5h");
  }
  url.remove_prefix(scheme.size() + 3);
  if (url.ends_with('/')) url.remove_suffix(1);
  if (const auto at = url.rfind('@'); at != std::string_view::npos) {
    const auto login = url.substr(0, at);
    const auto colon = std::min(login.find(':'), login.size());
    proxy.user = SBX_TRY(percent_decoded(login.substr(0, colon)), "reading its user");
    auto password = SBX_TRY(percent_decoded(login.substr(std::min(colon + 1, login.size()))), "reading its password");
    if (proxy.user.size() > 255 || password.size() > 255) {
      return fail(ErrorCode::kInvalid, "its user or password is longer than 255 bytes");
    }
    proxy.password = SecretValue(password);
    wipe(password);
    url.remove_prefix(at + 1);
  }
  if (const auto colon = url.rfind(':'); colon != std::string_view::npos && !url.ends_with(']')) {
    const auto port = policy::parse_port(url.substr(colon + 1));
    if (!port) return fail(ErrorCode::kInvalid, "its port is not one of 1 to 65535");
    proxy.port = *port;
    url = url.substr(0, colon);
  }
  proxy.host = SBX_TRY(policy::canonical_host(url), "reading its host");
  return proxy;
}

Result<std::optional<UpstreamProxy>> parse_proxy(const json& document) {
  const auto found = document.find("upstream_proxy");
  if (found == document.end() || found->is_null()) return std::nullopt;
  auto url = found->is_object() ? text_of(*found, "url") : std::string();
  auto proxy = parse_proxy_url(url);
  wipe(url);
  if (!proxy) return std::unexpected(std::move(proxy).error().while_doing("reading upstream_proxy.url"));
  proxy->direct = split_list(text_of(*found, "no_proxy"));
  return std::optional<UpstreamProxy>(std::move(*proxy));
}

std::vector<std::uint16_t> ports_of(const json& policy) {
  std::set<std::uint16_t> ports{443, 80};
  const auto rules = policy.find("rules");
  if (rules != policy.end() && rules->is_array()) {
    for (const auto& rule : *rules) {
      for (const auto& resource : rule.value("resources", json::array())) {
        const auto pattern = policy::Pattern::parse(resource.is_string() ? resource.get<std::string>() : "");
        if (pattern && pattern->port()) ports.insert(*pattern->port());
      }
    }
  }
  for (std::uint16_t port = 1;; ++port) {
    if (ports.insert(port).second) break;
  }
  return {ports.begin(), ports.end()};
}

Result<std::shared_ptr<GatewayConfig>> read(const json& document) {
  if (!document.is_object()) return fail(ErrorCode::kInvalid, "the configuration is not a JSON object");
  auto config = std::make_shared<GatewayConfig>();
  config->sandbox_id = text_of(document, "sandbox_id");
  config->name = text_of(document, "name");
  const auto policy = document.find("policy");
  if (policy == document.end()) return fail(ErrorCode::kInvalid, "the configuration has no policy");
  config->policy = SBX_TRY(policy::RuleSet::from_json(*policy), "reading the policy");
  config->ports = ports_of(*policy);
  if (const auto authority = document.find("authority"); authority != document.end() && authority->is_object()) {
    CertifiedKey intermediate{text_of(*authority, "certificate"), text_of(*authority, "key")};
    auto tls = GuestTls::make(intermediate);
    wipe(intermediate.key);
    config->guest_tls = SBX_TRY(std::move(tls), "reading the authority");
  }
  config->upstream_proxy = SBX_TRY(parse_proxy(document), "reading the upstream proxy");
  if (const auto list = document.find("credentials"); list != document.end() && !list->is_null()) {
    config->credentials = SBX_TRY(Credentials::from_json(*list), "reading the credentials");
  }
  return config;
}

}  // namespace

bool UpstreamProxy::bypassed_for(std::string_view host) const {
  const auto address = policy::parse_address(host);
  return std::ranges::any_of(direct, [&](std::string_view entry) {
    if (entry == "*") return true;
    if (address) {
      const auto network = policy::Network::parse(entry);
      return network && network->contains(*address);
    }
    if (entry.starts_with('.')) entry.remove_prefix(1);
    return !entry.empty() && (host == entry || (host.ends_with(entry) && host[host.size() - entry.size() - 1] == '.'));
  });
}

Result<std::shared_ptr<GatewayConfig>> GatewayConfig::parse(std::string text) {
  WipingJson document{json::parse(text, nullptr, false)};
  wipe(text);
  if (document.value.is_discarded()) return fail(ErrorCode::kInvalid, "the configuration is not JSON");
  try {
    return read(document.value);
  } catch (const json::exception& error) {
    return fail(ErrorCode::kInvalid, "the configuration has a member of the wrong type");
  }
}

bool GatewayConfig::names_host(const std::string& host) const {
  return std::ranges::any_of(ports, [&](std::uint16_t port) {
    policy::Target target;
    target.host = host;
    target.port = port;
    return policy.decide(target).allowed;
  });
}

}  // namespace sbx::gateway
