// What a token endpoint answers (RFC 6749 section 5.1), with its tokens taken out.
#pragma once

#include <string>

#include "gateway/credentials.h"

namespace sbx::gateway {

struct KeptTokens {
  std::string shown;     // to the guest
  bool changed = false;  // there were tokens
};

// Keeps access_token and refresh_token in `login` and returns the answer with the sentinels in their place. An answer
// without tokens is returned as it is. kUnavailable: it is not JSON, so that it cannot be shown, or a token is none.
Result<KeptTokens> keep_tokens(OauthLogin& login, std::string& response);

// What GET /logins tells of it (docs/development/protocols.md); the caller wipes it.
std::string login_update(const OauthLogin& login);

}  // namespace sbx::gateway
