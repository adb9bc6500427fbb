#include "secret/request.h"

#include <openssl/rand.h>

#include <algorithm>
#include <charconv>
#include <nlohmann/json.hpp>

#include "secret/fetch.h"
#include "secret/services.h"

namespace sbx::secret {
namespace {

using nlohmann::json;

constexpr std::size_t kLargestValue = 16U << 10U;
constexpr std::size_t kMostTargets = 64;
constexpr std::int64_t kLongestRefresh = 30LL * 24 * 3600;

std::unexpected<Error> invalid(std::string message) { return fail(ErrorCode::kInvalid, std::move(message)); }

bool is_alnum(char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

Result<std::string> text_of(const json& head, const char* key) {
  const auto found = head.find(key);
  if (found == head.end() || found->is_null()) return std::string();
  if (!found->is_string()) return invalid(std::string(key) + " must be a text");
  std::string text = found->get<std::string>();
  if (std::ranges::any_of(text, [](unsigned char c) { return c < ' ' || c == 0x7f; }))
    return invalid(std::string(key) + " must not hold control characters");
  return text;
}

bool is_utf8(std::string_view text) {
  for (std::size_t i = 0; i < text.size();) {
    const auto lead = static_cast<unsigned char>(text[i]);
    const std::size_t length = lead < 0x80 ? 1 : lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : 2;
    if ((lead >= 0x80 && lead < 0xc2) || lead > 0xf4 || i + length > text.size()) return false;
    for (std::size_t k = 1; k < length; ++k) {
      if ((static_cast<unsigned char>(text[i + k]) & 0xc0U) != 0x80U) return false;
    }
    // Overlong forms, surrogates, and what lies past U+10FFFF.
    const auto second = length > 1 ? static_cast<unsigned char>(text[i + 1]) : 0U;
    if ((lead == 0xe0 && second < 0xa0) || (lead == 0xed && second > 0x9f) || (lead == 0xf0 && second < 0x90) ||
        (lead == 0xf4 && second > 0x8f))
      return false;
    i += length;
  }
  return true;
}

Result<void> check_variable(const std::string& name) {
  const bool shape = !name.empty() && (is_alnum(name[0]) || name[0] == '_') && (name[0] < '0' || name[0] > '9') &&
                     std::ranges::all_of(name, [](char c) { return is_alnum(c) || c == '_'; });
  if (!shape) return invalid("\"" + name + "\" is not the name of an environment variable");
  for (const std::string_view prefix : {"SBX_", "DOCKER_", "DASH_", "LD_"}) {
    if (name.starts_with(prefix)) return invalid(std::string(prefix) + "* variables are reserved: " + name);
  }
  for (const std::string_view own :
       {"PATH", "HOME", "USER", "SHELL", "TERM", "LANG", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy",
        "https_proxy", "no_proxy", "BASH_ENV", "SSH_AUTH_SOCK"}) {
    if (name == own) return invalid(name + " is set by the sandbox itself");
  }
  return {};
}

// A host name or address, with a port or without. Strict: a gateway refuses a configuration with a host that is none.
Result<void> check_host(const std::string& text) {
  if (text.find('*') == std::string::npos && check_target(text)) return {};
  return invalid("\"" + text + "\" is not a host name");
}

bool is_port(std::string_view text) {
  unsigned port = 0;
  const auto* end = text.data() + text.size();
  const auto read = std::from_chars(text.data(), end, port);
  return read.ec == std::errc() && read.ptr == end && port >= 1 && port <= 65'535 && text.front() != '0';
}

Result<void> read_source(const json& head, Record& record) {
  const std::string reference = SBX_TRY(text_of(head, "ref"), "reading the request");
  const auto command = head.find("command");
  const bool has_command = command != head.end() && !command->is_null();
  if (!reference.empty() && has_command) return invalid("--ref and --command exclude each other");
  if (!reference.empty()) {
    SBX_TRY(reference_command(reference), "reading the reference");
    record.source = Source::kReference;
    record.reference = reference;
  } else if (has_command) {
    if (!command->is_string() || command->get<std::string>().empty()) return invalid("command must be a text");
    record.source = Source::kCommand;
    record.reference = command->get<std::string>();
    if (record.reference.size() > kLargestValue || record.reference.find('\0') != std::string::npos)
      return invalid("the command is too long, or holds a NUL");
  } else {
    return {};
  }
  if (!record.value.empty()) return invalid("a value was given as well as a reference or command");
  const auto refresh = head.find("refresh_s");
  if (refresh != head.end() && !refresh->is_null()) {
    if (!refresh->is_number_integer() || refresh->get<std::int64_t>() < 0 ||
        refresh->get<std::int64_t>() > kLongestRefresh)
      return invalid("refresh_s must be seconds, at most 30 days, or 0 for on demand");
    record.refresh_s = refresh->get<std::int64_t>();
  } else {
    record.refresh_s = record.kind == Kind::kCustom ? 0 : 55 * 60;
  }
  if (const auto environment = head.find("environment"); environment != head.end() && environment->is_object()) {
    for (const auto& [key, value] : environment->items()) {
      if (!value.is_string() || key.empty() || key.find('=') != std::string::npos)
        return invalid("environment must be an object of texts");
      record.environment[key] = value.get<std::string>();
    }
  }
  return {};
}

Result<void> read_service(Record& record) {
  if (record.name.starts_with("mcp:")) return invalid("names that begin with mcp: are reserved");
  if (find_service(record.name) != nullptr) return {};
  std::string known;
  for (const auto& service : services()) known += (known.empty() ? "" : ", ") + std::string(service.name);
  return invalid("unknown service \"" + record.name + "\" (known: " + known +
                 "); for anything else there is sbx secret set-custom");
}

Result<void> read_registry(const json& head, Record& record) {
  SBX_CHECK(check_host(record.name), "reading the registry");
  record.username = SBX_TRY(text_of(head, "username"), "reading the request");
  if (record.username.empty() && record.scope != kHostScope)
    return invalid("a registry's password for sandboxes needs --username");
  if (record.username.find(':') != std::string::npos) return invalid("a user name must not hold a colon");
  record.auth_endpoint = SBX_TRY(text_of(head, "auth_endpoint"), "reading the request");
  if (!record.auth_endpoint.empty()) {
    if (!record.auth_endpoint.starts_with("https://"))
      return invalid("--registry-auth-endpoint must be an https:// URL");
    const auto host = record.auth_endpoint.substr(8, record.auth_endpoint.find('/', 8) - 8);
    SBX_CHECK(check_host(host), "reading the endpoint");
  }
  if (record.source != Source::kValue)
    return invalid("a registry's password is stored; --ref and --command are not for it");
  return {};
}

Result<void> read_custom(const json& head, Record& record) {
  SBX_CHECK(check_variable(record.name), "reading the variable");
  const auto targets = head.find("targets");
  if (targets == head.end() || !targets->is_array() || targets->empty() || targets->size() > kMostTargets)
    return invalid("a custom secret needs --host: the hosts that it is sent to (at most 64)");
  for (const auto& target : *targets) {
    if (!target.is_string()) return invalid("targets must be a list of texts");
    std::string pattern = target.get<std::string>();
    std::ranges::transform(pattern, pattern.begin(),
                           [](char c) { return c >= 'A' && c <= 'Z' ? char(c - 'A' + 'a') : c; });
    SBX_CHECK(check_target(pattern), "reading the hosts");
    if (std::ranges::find(record.targets, pattern) == record.targets.end()) record.targets.push_back(pattern);
  }
  record.placeholder =
      SBX_TRY(make_placeholder(SBX_TRY(text_of(head, "placeholder"), "reading the request")), "making a placeholder");
  if (const auto in_body = head.find("in_body"); in_body != head.end() && in_body->is_boolean())
    record.in_body = in_body->get<bool>();
  if (!record.value.empty() && record.value.reveal().find(record.placeholder) != std::string_view::npos)
    return invalid("the placeholder must not be a part of the value");
  return {};
}

}  // namespace

Result<void> clean_value(LockedString& value) {
  const auto end = value.reveal().find_last_not_of(" \t\r\n");
  value.shrink_to(end == std::string_view::npos ? 0 : end + 1);
  const auto text = value.reveal();
  if (text.empty()) return invalid("the value is empty");
  if (text.size() > kLargestValue) return invalid("the value is longer than 16 KiB");
  if (std::ranges::any_of(text, [](unsigned char c) { return c < ' ' || c == 0x7f; }))
    return invalid("the value must be one line without control characters");
  if (!is_utf8(text)) return invalid("the value is not UTF-8 text");
  return {};
}

Result<void> check_target(std::string_view pattern) {
  const auto colon = pattern.find(':');
  std::string_view host = pattern.substr(0, colon);
  if (colon != std::string_view::npos && !is_port(pattern.substr(colon + 1)))
    return invalid("\"" + std::string(pattern) + "\" names a port that is none: 1 to 65535");
  const auto whole = host.size();
  if (host.starts_with("**."))
    host.remove_prefix(3);
  else if (host.starts_with("*."))
    host.remove_prefix(2);
  const bool wild = host.size() != whole;
  bool shape = !host.empty() && host.size() <= 253;
  std::size_t labels = 0;
  for (std::string_view rest = host; shape;) {
    const auto label = rest.substr(0, rest.find('.'));
    shape = !label.empty() && label.size() <= 63 && is_alnum(label.front()) && is_alnum(label.back()) &&
            std::ranges::all_of(label, [](char c) { return is_alnum(c) || c == '-'; });
    ++labels;
    if (label.size() == rest.size()) break;
    rest.remove_prefix(label.size() + 1);
  }
  if (!shape)
    return invalid("\"" + std::string(pattern) +
                   "\" is no host: give a name such as api.example.com, api.example.com:8443 or **.example.com");
  // A secret that goes to all of .com goes to anybody.
  if (wild && labels < 2) return invalid("\"" + std::string(pattern) + "\" covers too much for a secret");
  return {};
}

Result<std::string> make_placeholder(const std::string& pattern) {
  constexpr std::size_t kDefault = 16;
  std::string text = pattern.empty() ? "sbx-cs-{rand}" : pattern;
  if (const auto at = text.find("{rand"); at != std::string::npos) {
    const auto end = text.find('}', at);
    std::size_t count = kDefault;
    bool good = end != std::string::npos;
    if (good && text[at + 5] == ':') {
      const auto* last = text.data() + end;
      const auto read = std::from_chars(text.data() + at + 6, last, count);
      good = read.ec == std::errc() && read.ptr == last && count >= 8 && count <= 200;
    } else {
      good = good && end == at + 5;
    }
    if (!good) return invalid("--placeholder takes {rand} or {rand:N} with N from 8 to 200");
    constexpr std::string_view kLetters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    std::string random;
    while (random.size() < count) {
      unsigned char byte = 0;
      if (RAND_bytes(&byte, 1) != 1) return fail(ErrorCode::kInternal, "OpenSSL has no randomness");
      if (byte < 4 * kLetters.size()) random += kLetters[byte % kLetters.size()];
    }
    text.replace(at, end + 1 - at, random);
  }
  const bool visible = std::ranges::all_of(text, [](char c) { return c > ' ' && c < 0x7f; });
  if (!visible || text.size() < 8 || text.size() > 256)
    return invalid("a placeholder is 8 to 256 visible ASCII characters; {rand} stands for random ones");
  return text;
}

Result<Record> parse_request(const json& head, LockedString value) {
  if (!head.is_object()) return invalid("the head must be a JSON object");
  Record record;
  record.value = std::move(value);
  const std::string kind = SBX_TRY(text_of(head, "type"), "reading the request");
  record.name = SBX_TRY(text_of(head, "name"), "reading the request");
  record.scope = SBX_TRY(text_of(head, "scope"), "reading the request");
  if (record.scope.empty()) record.scope = kGlobalScope;
  if (kind == "service") {
    record.kind = Kind::kService;
  } else if (kind == "registry") {
    record.kind = Kind::kRegistry;
  } else if (kind == "custom") {
    record.kind = Kind::kCustom;
  } else {
    return invalid("type must be service, registry or custom");
  }
  if (record.scope == kHostScope && record.kind != Kind::kRegistry)
    return invalid("only a registry's password can be for the host alone");
  SBX_CHECK(read_source(head, record), "reading where the value comes from");
  if (record.source == Source::kValue) SBX_CHECK(clean_value(record.value), "reading the value");
  if (record.kind == Kind::kService) SBX_CHECK(read_service(record), "reading the service");
  if (record.kind == Kind::kRegistry) SBX_CHECK(read_registry(head, record), "reading the registry");
  if (record.kind == Kind::kCustom) SBX_CHECK(read_custom(head, record), "reading the custom secret");
  return record;
}

}  // namespace sbx::secret
