// Base64 (RFC 4648 section 4), with padding. Pure.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace sbx::gateway {

std::string base64_encode(std::string_view bytes);
// nullopt: not base64 in its one spelling.
std::optional<std::string> base64_decode(std::string_view text);

}  // namespace sbx::gateway
