// What a token endpoint answers (RFC 6749 section 5.1), with its tokens taken out.
#pragma once

#include <string>

#include "gateway/credentials.h"

namespace sbx::gateway {

// Keeps access_token and refresh_token in `login` and returns the answer with the sentinels in their place. An answer
// without tokens is returned as it is. kUnavailable: it is not JSON, so that it cannot be shown.
Result<std::string> keep_tokens(OauthLogin& login, std::string& response);

}  // namespace sbx::gateway
