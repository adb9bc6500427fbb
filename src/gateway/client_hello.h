// The ClientHello of a TLS connection (RFC 8446 section 4.1.2), read without taking part in it: what name it asks for,
// which protocols it offers, whether it carries an encrypted ClientHello. Pure; bytes are the guest's.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace sbx::gateway {

struct ClientHello {
  std::string server_name;        // lower case; empty when there is none
  std::vector<std::string> alpn;  // in the client's order
  bool encrypted_hello = false;   // the extension is there; for an outsider GREASE looks the same (RFC 9849)
};

// What a ClientHello may be long, with all its records; real ones with post-quantum keys have 2 KB.
inline constexpr std::size_t kMaxClientHello = 32U << 10U;

// True once `bytes` (the start of a connection) cannot be anything but TLS: a handshake record.
bool looks_like_tls(std::string_view bytes);

// kUnavailable: more bytes are needed. kInvalid: not a well-formed ClientHello, or one that says a thing twice.
Result<ClientHello> parse_client_hello(std::string_view bytes);

}  // namespace sbx::gateway
