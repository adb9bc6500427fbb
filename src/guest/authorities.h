// The certificate authorities that the host hands over (Identity.authorities): that of the gateway, and the host's own.
//
// They are appended to the system's bundle, hundreds of milliseconds faster than update-ca-certificates would be under
// software emulation, and laid where that program finds them when it runs for another reason. Blocking, short.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "base/result.h"

namespace sbx::guest {

// PEM of what was handed over, alone: for programs that add it to authorities of their own.
inline constexpr const char* kExtraAuthorities = "/etc/sbx/extra-ca.pem";
inline constexpr const char* kAuthorityBundle = "/etc/ssl/certs/ca-certificates.crt";

// Nothing happens if the same were handed over before (the disk keeps them). `root` is "/", but for tests.
Result<void> trust_authorities(const std::vector<std::string>& authorities, const std::filesystem::path& root = "/");

}  // namespace sbx::guest
