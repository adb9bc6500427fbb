#include "gateway/login_tokens.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "wire/length_prefix.h"

namespace sbx::gateway {

using nlohmann::ordered_json;

namespace {

constexpr std::size_t kLongestToken = 16U << 10U;

// VSCHAR (RFC 6749 appendix A.12) without the space: a token goes into a header.
bool is_token_or_none(const std::string* text) {
  if (text == nullptr) return true;
  return text->size() <= kLongestToken && std::ranges::all_of(*text, [](char c) { return c > ' ' && c < 0x7f; });
}

// nullptr: there is none.
std::string* find_token(ordered_json& document, const char* key, const std::string& sentinel) {
  const auto found = document.find(key);
  if (found == document.end() || !found->is_string()) return nullptr;
  auto& text = found->get_ref<std::string&>();
  if (text.empty() || text == sentinel) return nullptr;
  return &text;
}

// True if there was a token.
bool keep(std::string* token, SecretValue& value, const std::string& sentinel) {
  if (token == nullptr) return false;
  value = SecretValue(*token);
  wipe(*token);
  *token = sentinel;
  return true;
}

}  // namespace

Result<KeptTokens> keep_tokens(OauthLogin& login, std::string& response) {
  auto document = ordered_json::parse(response, nullptr, false);
  if (!document.is_object()) return fail(ErrorCode::kUnavailable, "the token endpoint did not answer with JSON");
  // Both or neither: an answer that is refused changes nothing.
  auto* const access = find_token(document, "access_token", login.access_sentinel);
  auto* const refresh = find_token(document, "refresh_token", login.refresh_sentinel);
  if (!is_token_or_none(access) || !is_token_or_none(refresh)) {
    for (auto* token : {access, refresh}) {
      if (token != nullptr) wipe(*token);
    }
    return fail(ErrorCode::kUnavailable, "a token of the token endpoint's answer is none");
  }
  KeptTokens kept;
  kept.changed = keep(access, login.access, login.access_sentinel);
  kept.changed |= keep(refresh, login.refresh, login.refresh_sentinel);
  kept.shown = document.dump(-1, ' ', false, ordered_json::error_handler_t::replace);
  return kept;
}

std::string login_update(const OauthLogin& login) {
  std::string body;
  for (auto field : {std::to_string(login.changed), login.service, std::to_string(login.generation),
                     std::string(login.access.view()), std::string(login.refresh.view())}) {
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
