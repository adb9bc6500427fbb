// What a client asks for when it stores a secret, checked. Pure but for randomness.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

#include "secret/record.h"

namespace sbx::secret {

// A record from a SecretHead (api/openapi.yaml) and the value that came with it. The scope stays as the client named
// it: "global", "host-only", or the sandbox's name, which the caller turns into its id. kInvalid names what is wrong:
// an unknown service, a value that could not stand in a header (control characters, not UTF-8), a host pattern that
// covers everything, an environment variable that is the guest's own.
Result<Record> parse_request(const nlohmann::json& head, LockedString value);

// One line of text of at most 16 KiB that can be a header's value. White space at the end is cut off first (a pipe's
// newline).
Result<void> clean_value(LockedString& value);

// "api.example.com", "*.example.com" (one label), "**.example.com" (example.com and all below it); each with :PORT, or
// for every port.
Result<void> check_target(std::string_view pattern);

// `pattern` with {rand} or {rand:N} replaced by N (default 16) random letters and digits; "" is "sbx-cs-{rand}".
Result<std::string> make_placeholder(const std::string& pattern);

}  // namespace sbx::secret
