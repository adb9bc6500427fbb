#include "gateway/login_tokens.h"

#include <nlohmann/json.hpp>

namespace sbx::gateway {

using nlohmann::ordered_json;

namespace {

// True if there was a token.
bool keep(ordered_json& document, const char* key, SecretValue& value, const std::string& sentinel) {
  const auto found = document.find(key);
  if (found == document.end() || !found->is_string()) return false;
  auto& text = found->get_ref<std::string&>();
  if (text.empty() || text == sentinel) return false;
  value = SecretValue(text);
  wipe(text);
  *found = sentinel;
  return true;
}

}  // namespace

Result<std::string> keep_tokens(OauthLogin& login, std::string& response) {
  auto document = ordered_json::parse(response, nullptr, false);
  if (!document.is_object()) return fail(ErrorCode::kUnavailable, "the token endpoint did not answer with JSON");
  keep(document, "access_token", login.access, login.access_sentinel);
  keep(document, "refresh_token", login.refresh, login.refresh_sentinel);
  return document.dump(-1, ' ', false, ordered_json::error_handler_t::replace);
}

}  // namespace sbx::gateway
