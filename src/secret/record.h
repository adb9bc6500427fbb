// One stored secret: what it is for, where its value comes from, and the value itself. Values and movable only, as
// LockedString is. Pure.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/locked_string.h"

namespace sbx::secret {

enum class Kind { kService, kRegistry, kCustom, kLogin };
enum class Source { kValue, kReference, kCommand };

std::string_view to_string(Kind kind);      // "service", "registry", "custom", "oauth"
std::string_view to_string(Source source);  // "value", "ref", "command"

// Scopes: for every sandbox, for sbx itself on the host only (registries), else the id of one sandbox.
inline constexpr std::string_view kGlobalScope = "global";
inline constexpr std::string_view kHostScope = "host-only";

struct Record {
  Kind kind = Kind::kService;
  std::string scope{kGlobalScope};
  std::string name;  // service, also of a login; registry host; environment variable of a custom secret

  Source source = Source::kValue;
  std::string reference;                           // op://..., an ARN, or the command
  std::map<std::string, std::string> environment;  // captured for the reference's program: OP_ACCOUNT, PATH, ...
  std::int64_t refresh_s = 0;                      // of a reference or command; 0: on demand

  std::string username;       // registry
  std::string auth_endpoint;  // registry; "" or https://host/path

  std::vector<std::string> targets;  // custom: host patterns
  std::string placeholder;           // custom
  bool in_body = false;              // custom: replaced in bodies too

  std::int64_t created_at = 0;  // ms since 1970

  LockedString value;  // Source::kValue: stored; of a login: pack_tokens(). Else what was fetched last; never stored.
  std::int64_t fetched_at = 0;  // not stored

  bool in_sandbox() const { return scope != kGlobalScope && scope != kHostScope; }
  // Identifies it in the store: two records with one key cannot be there at once.
  std::string key() const;
};

// The stored form: 4 bytes of length, everything but the value as JSON, then the value. decode() refuses (kInvalid)
// anything that encode() could not have made.
Result<LockedString> encode(const Record& record);
Result<Record> decode(std::string_view bytes);

// What a client sent: 4 bytes of length, JSON, the value (src/api). kInvalid when the length lies.
struct Head {
  std::string_view json;
  std::string_view value;
};
Result<Head> split_head(std::string_view bytes);

}  // namespace sbx::secret
