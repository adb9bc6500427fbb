#include "gateway/login_tokens.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "wire/length_prefix.h"

namespace sbx::gateway {

using nlohmann::ordered_json;

namespace {

constexpr std::size_t kLongestToken = 16U << 10U;

// VSCHAR (RFC 6749 appendix A.12) without the space: a token goes into a header.
bool is_token(const std::string& text) {
  return text.size() <= kLongestToken && std::ranges::all_of(text, [](char c) { return c > ' ' && c < 0x7f; });
}

// True if there was a token.
Result<bool> keep(ordered_json& document, const char* key, SecretValue& value, const std::string& sentinel) {
  const auto found = document.find(key);
  if (found == document.end() || !found->is_string()) return false;
  auto& text = found->get_ref<std::string&>();
  if (text.empty() || text == sentinel) return false;
  if (!is_token(text)) {
    wipe(text);
    return fail(ErrorCode::kUnavailable, std::string("the token endpoint's ") + key + " is none");
  }
  value = SecretValue(text);
  wipe(text);
  *found = sentinel;
  return true;
}

}  // namespace

Result<KeptTokens> keep_tokens(OauthLogin& login, std::string& response) {
  auto document = ordered_json::parse(response, nullptr, false);
  if (!document.is_object()) return fail(ErrorCode::kUnavailable, "the token endpoint did not answer with JSON");
  KeptTokens kept;
  kept.changed = SBX_TRY(keep(document, "access_token", login.access, login.access_sentinel), "reading the answer");
  kept.changed |= SBX_TRY(keep(document, "refresh_token", login.refresh, login.refresh_sentinel), "reading the answer");
  kept.shown = document.dump(-1, ' ', false, ordered_json::error_handler_t::replace);
  return kept;
}

std::string login_update(const OauthLogin& login) {
  std::string body;
  for (auto field : {std::to_string(login.changed), login.service, std::string(login.access.view()),
                     std::string(login.refresh.view())}) {
    auto framed = wire::length_prefixed(field);
    wipe(field);
    // Room for everything at first: a string that grows leaves copies.
    body.reserve(kLongestToken * 2 + 1024);
    body += framed;
    wipe(framed);
  }
  auto update = wire::length_prefixed(body);
  wipe(body);
  return update;
}

}  // namespace sbx::gateway
