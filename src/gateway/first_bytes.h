// What a connection is, told by its first bytes. Pure.
#pragma once

#include <string_view>

namespace sbx::gateway {

enum class FirstBytes { kTooFew, kTls, kHttp1, kHttp2, kOther };

FirstBytes classify(std::string_view bytes);

// Ports of protocols whose server speaks first, or that are neither HTTP nor TLS: a refusal needs no look at what the
// guest sends.
bool never_http(unsigned short port);

}  // namespace sbx::gateway
