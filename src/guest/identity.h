// POST /identity: makes this VM, perhaps a clone of another, somebody of its own. Blocking but short.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace sbx::guest {

// docs/development/protocols.md, Identity.
struct Identity {
  std::string hostname;
  std::string machine_id;
  std::string entropy;  // decoded
  std::int64_t time_ns = 0;
  std::vector<std::string> environment;
  std::string sandbox_id;
  std::vector<std::string> authorities;  // PEM, one certificate each
  bool ssh_agent = false;                // the host's is forwarded
};

Result<Identity> parse_identity(std::string_view json);
Result<std::string> decode_base64(std::string_view text);
// /etc/hosts with `hostname` on the line of 127.0.1.1, everything else as it was.
std::string hosts_with(std::string_view hosts, std::string_view hostname);
// One `export K='V'` per entry, quoted for sh.
std::string profile_script(const std::vector<std::string>& environment);

// CLOCK_REALTIME, in nanoseconds since 1970.
Result<void> set_clock(std::int64_t time_ns);
// Clock and entropy first, then names. Members that are empty (or 0) are left as they are.
Result<void> apply_identity(const Identity& identity);

}  // namespace sbx::guest
