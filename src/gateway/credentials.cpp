#include "gateway/credentials.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "gateway/base64.h"
#include "policy/http_rule.h"

namespace sbx::gateway {

using nlohmann::json;

namespace {

constexpr std::size_t kMaxValue = 16U << 10U;
// Shorter ones would be found by chance in what has nothing to do with them.
constexpr std::size_t kShortestRedacted = 8;

std::string text_of(const json& item, const char* key) {
  const auto found = item.find(key);
  return found != item.end() && found->is_string() ? found->get<std::string>() : std::string();
}

bool is_field_value(std::string_view text) {
  return std::ranges::all_of(text, [](unsigned char c) { return c >= ' ' && c != 0x7f; });
}
bool is_field_name(std::string_view text) {
  return !text.empty() && std::ranges::all_of(text, [](char c) {
    return std::isalnum(static_cast<unsigned char>(c)) || c == '-' || c == '_';
  });
}

Result<std::vector<policy::Pattern>> parse_domains(const json& item) {
  const auto list = item.find("domains");
  if (list == item.end() || !list->is_array()) return fail(ErrorCode::kInvalid, "domains are missing");
  std::vector<policy::Pattern> domains;
  for (const auto& domain : *list) {
    if (!domain.is_string()) return fail(ErrorCode::kInvalid, "a domain is not a string");
    auto pattern = SBX_TRY(policy::Pattern::parse(domain.get<std::string>()), "reading domains");
    if (pattern.kind() == policy::Pattern::Kind::kEverything) {
      return fail(ErrorCode::kInvalid, "a credential is for some hosts, not for all");
    }
    domains.push_back(std::move(pattern));
  }
  return domains;
}

std::string percent_encoded(std::string_view text) {
  static constexpr std::string_view kHex = "0123456789ABCDEF";
  std::string out;
  for (const unsigned char c : text) {
    if (std::isalnum(c) || c == '-' || c == '.' || c == '_' || c == '~') {
      out.push_back(static_cast<char>(c));
    } else {
      out.push_back('%');
      out.push_back(kHex[c >> 4U]);
      out.push_back(kHex[c & 15U]);
    }
  }
  return out;
}

std::string json_escaped(std::string_view text) {
  auto quoted = json(std::string(text)).dump(-1, ' ', false, json::error_handler_t::replace);
  return quoted.substr(1, quoted.size() - 2);
}

// The credential of a service, as the header carries it.
Result<std::string> header_value(const json& item, std::string_view raw) {
  if (const auto user = text_of(item, "basic_user"); !user.empty()) {
    return "Basic " + base64_encode(user + ":" + std::string(raw));
  }
  const auto format = item.contains("format") ? text_of(item, "format") : "%s";
  const auto at = format.find("%s");
  if (at == std::string::npos) return fail(ErrorCode::kInvalid, "the format has no %s");
  return format.substr(0, at) + std::string(raw) + format.substr(at + 2);
}

// Adds what a response must not show: the value as it is and as it may be spelt in URLs and JSON.
void hide(RequestSecrets& secrets, std::string_view value, std::string_view shown) {
  if (value.size() < kShortestRedacted) return;
  std::vector<std::string> spellings{std::string(value)};
  for (auto other : {percent_encoded(value), json_escaped(value)}) {
    if (std::ranges::find(spellings, other) == spellings.end()) spellings.push_back(std::move(other));
  }
  for (auto& spelling : spellings) {
    std::string mask = shown.size() == spelling.size() ? std::string(shown) : std::string(spelling.size(), '*');
    const auto& needle = secrets.owned.emplace_back(spelling);
    const auto& replacement = secrets.owned_public.emplace_back(std::move(mask));
    secrets.response.add(needle.view(), replacement);
    wipe(spelling);
  }
}

char lower(char c) { return static_cast<char>(std::tolower(static_cast<unsigned char>(c))); }

bool is_bearer(std::string_view value) {
  static constexpr std::string_view kScheme = "bearer ";
  return value.size() > kScheme.size() && std::ranges::equal(value.substr(0, kScheme.size()), kScheme, {}, lower);
}

bool is_form(const HeaderList& headers) {
  const auto* type = find_header(headers, "content-type");
  return type != nullptr && type->starts_with("application/x-www-form-urlencoded");
}
bool is_json(const HeaderList& headers) {
  const auto* type = find_header(headers, "content-type");
  return type != nullptr && type->find("json") != std::string::npos;
}

// `from` becomes `to` in every header; in Basic credentials also within the encoded text.
bool replace_in_headers(HeaderList& headers, std::string_view from, std::string_view to) {
  Replacer replacer;
  replacer.add(from, to);
  bool replaced = false;
  for (auto& [name, value] : headers) {
    if (value.find(from) != std::string::npos) {
      value = replacer.apply(value);
      replaced = true;
    }
    if (!value.starts_with("Basic ") && !value.starts_with("basic ")) continue;
    auto decoded = base64_decode(std::string_view(value).substr(6));
    if (!decoded || decoded->find(from) == std::string::npos) continue;
    auto plain = replacer.apply(*decoded);
    value = "Basic " + base64_encode(plain);
    wipe(plain);
    replaced = true;
  }
  return replaced;
}

// In the body; spelt as its type needs.
void replace_in_body(RequestSecrets& secrets, const HeaderList& headers, std::string_view from, std::string_view to) {
  std::string spelt = is_form(headers) ? percent_encoded(to) : is_json(headers) ? json_escaped(to) : std::string(to);
  const auto& value = secrets.owned.emplace_back(spelt);
  const auto& needle = secrets.owned_public.emplace_back(from);
  secrets.request_body.add(needle, value.view());
  wipe(spelt);
}

// "/v1;a/;b/token;c" -> "/v1/token": each segment may have parameters (RFC 3986 section 3.3).
std::string without_parameters(std::string_view path) {
  std::string plain;
  bool parameters = false;
  for (const char c : path) {
    parameters = c != '/' && (parameters || c == ';');
    if (!parameters && !(c == '/' && plain.ends_with('/'))) plain += c;
  }
  return plain;
}

}  // namespace

// However it is spelt: a server may take "//token", "/Token" or "/token;x" for its endpoint, and then its answer must
// not reach the guest as it is.
bool OauthLogin::has_endpoint(std::string_view host, std::string_view path) const {
  auto canonical = policy::canonical_path(path);
  if (canonical) canonical = without_parameters(*canonical);
  return std::ranges::any_of(endpoints, [&](const Endpoint& e) {
    return e.host == host && (!canonical || std::ranges::equal(*canonical, e.path, {}, lower, lower));
  });
}

Result<Credentials::Entry> Credentials::parse(const json& item) {
  if (!item.is_object()) return fail(ErrorCode::kInvalid, "it is not an object");
  Entry entry;
  entry.domains = SBX_TRY(parse_domains(item), "reading its domains");
  const auto kind = text_of(item, "kind");
  if (kind == "oauth") {
    entry.login = std::make_shared<OauthLogin>();
    entry.login->service = text_of(item, "service");
    for (const auto& endpoint : item.value("token_endpoints", json::array())) {
      auto host = SBX_TRY(policy::canonical_host(text_of(endpoint, "host")), "reading its endpoints");
      entry.login->endpoints.push_back({std::move(host), text_of(endpoint, "path")});
    }
    entry.login->generation = item.value("generation", std::uint64_t{0});
    entry.login->access_sentinel = text_of(item, "access_sentinel");
    entry.login->refresh_sentinel = text_of(item, "refresh_sentinel");
    if (entry.login->access_sentinel.empty() || entry.login->refresh_sentinel.empty() ||
        entry.login->access_sentinel == entry.login->refresh_sentinel) {
      return fail(ErrorCode::kInvalid, "it needs two sentinels that differ");
    }
    for (const auto& [key, value] :
         {std::pair("access", &entry.login->access), std::pair("refresh", &entry.login->refresh)}) {
      auto token = text_of(item, key);
      const bool good = token.size() <= kMaxValue && is_field_value(token);
      if (good) *value = SecretValue(token);
      wipe(token);
      if (!good) return fail(ErrorCode::kInvalid, "a token is too long or has control characters");
    }
    return entry;
  }
  auto raw = text_of(item, "value");
  if (raw.empty() || raw.size() > kMaxValue || !is_field_value(raw)) {
    wipe(raw);
    return fail(ErrorCode::kInvalid, "its value is empty, too long, or has control characters");
  }
  entry.raw = SecretValue(raw);
  if (kind == "service") {
    entry.header = text_of(item, "basic_user").empty() ? text_of(item, "header") : "authorization";
    std::ranges::transform(entry.header, entry.header.begin(), [](unsigned char c) { return std::tolower(c); });
    entry.keep_bearer = item.value("keep_bearer", false);
    if (!is_field_name(entry.header)) return fail(ErrorCode::kInvalid, "its header is not a header's name");
    auto value = SBX_TRY(header_value(item, raw), "reading its format");
    entry.value = SecretValue(value);
    wipe(value);
  } else if (kind == "custom") {
    entry.placeholder = text_of(item, "placeholder");
    entry.in_body = item.value("in_body", false);
    if (entry.placeholder.size() < kShortestRedacted) {
      return fail(ErrorCode::kInvalid, "its placeholder is shorter than 8 bytes");
    }
  } else {
    return fail(ErrorCode::kInvalid, "its kind is none of service, custom and oauth");
  }
  wipe(raw);
  return entry;
}

Result<Credentials> Credentials::from_json(const json& list) {
  Credentials credentials;
  if (!list.is_array()) return fail(ErrorCode::kInvalid, "credentials are not a list");
  for (std::size_t i = 0; i < list.size(); ++i) {
    auto entry = SBX_TRY(parse(list[i]), "reading credential " + std::to_string(i));
    credentials.entries_.push_back(std::make_shared<Entry>(std::move(entry)));
  }
  return credentials;
}

bool Credentials::matches(const Entry& entry, std::string_view host, std::uint16_t port) const {
  return std::ranges::any_of(entry.domains, [&](const policy::Pattern& domain) {
    if (domain.port() && *domain.port() != port) return false;
    if (domain.kind() == policy::Pattern::Kind::kName) return domain.matches_name(host);
    if (domain.kind() == policy::Pattern::Kind::kHost) return host == "localhost";
    const auto address = policy::parse_address(host);
    return address && domain.network().contains(*address);
  });
}

bool Credentials::concern(std::string_view host, std::uint16_t port) const {
  return std::ranges::any_of(entries_, [&](const auto& entry) {
    return matches(*entry, host, port) ||
           (entry->login && std::ranges::find(entry->login->endpoints, host, &OauthLogin::Endpoint::host) !=
                                entry->login->endpoints.end());
  });
}

std::unique_ptr<RequestSecrets> Credentials::apply(std::string_view host, std::uint16_t port, std::string& path,
                                                   HeaderList& headers) const {
  auto secrets = std::make_unique<RequestSecrets>();
  std::vector<std::string_view> written;
  for (const auto& entry : entries_) {
    if (entry->login != nullptr) {
      const auto& login = entry->login;
      const bool endpoint = login->has_endpoint(host, path);
      if (endpoint) secrets->login = login;
      if (!endpoint && !matches(*entry, host, port)) continue;
      for (const auto& [value, sentinel] :
           {std::pair(login->access.view(), std::string_view(login->access_sentinel)),
            std::pair(login->refresh.view(), std::string_view(login->refresh_sentinel))}) {
        if (value.empty()) continue;
        replace_in_headers(headers, sentinel, value);
        if (endpoint) replace_in_body(*secrets, headers, sentinel, value);
        hide(*secrets, value, sentinel);
      }
      continue;
    }
    if (!matches(*entry, host, port)) continue;
    if (entry->placeholder.empty()) {
      // The first of several for one header wins.
      if (std::ranges::find(written, entry->header) != written.end()) continue;
      written.push_back(entry->header);
      // What a registry's token endpoint gave the client for these credentials.
      if (const auto* own = find_header(headers, entry->header);
          entry->keep_bearer && own != nullptr && is_bearer(*own))
        continue;
      set_header(headers, entry->header, std::string(entry->value.view()));
      const auto word = entry->value.view();
      hide(*secrets, entry->raw.view(), "");
      if (word.starts_with("Basic ")) hide(*secrets, word.substr(6), "");
      continue;
    }
    replace_in_headers(headers, entry->placeholder, entry->raw.view());
    if (const auto query = path.find('?'); query != std::string::npos) {
      auto encoded = percent_encoded(entry->raw.view());
      Replacer replacer;
      replacer.add(entry->placeholder, encoded);
      path = path.substr(0, query) + replacer.apply(std::string_view(path).substr(query));
      wipe(encoded);
    }
    if (entry->in_body) replace_in_body(*secrets, headers, entry->placeholder, entry->raw.view());
    hide(*secrets, entry->raw.view(), entry->placeholder);
  }
  return secrets;
}

void Credentials::adopt_logins(const Credentials& older, std::uint64_t seen) {
  for (const auto& entry : entries_) {
    if (!entry->login) continue;
    for (const auto& login : older.logins()) {
      if (login->service != entry->login->service || login->generation != entry->login->generation) continue;
      auto told = std::exchange(entry->login, login);
      if (login->changed <= seen) {
        login->access = std::move(told->access);
        login->refresh = std::move(told->refresh);
      }
      login->endpoints = std::move(told->endpoints);
      login->access_sentinel = std::move(told->access_sentinel);
      login->refresh_sentinel = std::move(told->refresh_sentinel);
    }
  }
}

std::vector<std::shared_ptr<OauthLogin>> Credentials::logins() const {
  std::vector<std::shared_ptr<OauthLogin>> logins;
  for (const auto& entry : entries_) {
    if (entry->login) logins.push_back(entry->login);
  }
  return logins;
}

}  // namespace sbx::gateway
