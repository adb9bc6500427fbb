// What people write to publish a port: [[HOST_IP:]HOST_PORT:]SANDBOX_PORT[/PROTOCOL]. Pure.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"
#include "store/port_store.h"

namespace sbx::sandbox {

struct PortSpec {
  std::vector<std::string> host_ips;  // never empty
  bool second_is_optional = false;    // 127.0.0.1 and ::1, and the host may not have the latter
  std::int64_t host_port = 0;         // 0: any that is free, the same on every address
  std::int64_t sandbox_port = 0;
  std::string protocol;  // tcp or udp
  std::string text;      // as it was written
};

// PROTOCOL is tcp, tcp4, tcp6, udp, udp4 or udp6; without it tcp4, or tcp6 if HOST_IP is of IPv6. Without HOST_IP the
// loopback: 127.0.0.1 for tcp4, ::1 for tcp6, both for tcp. An IPv6 address stands in brackets. kInvalid says what is
// wrong.
Result<PortSpec> parse_port_spec(const std::string& text);

// What is to be withdrawn: SANDBOX_PORT, every mapping of it; HOST_PORT:SANDBOX_PORT and
// HOST_IP:HOST_PORT:SANDBOX_PORT, that one. Without a protocol it is tcp. kNotFound if nothing of the kind is
// published.
Result<std::vector<store::PublishedPort>> ports_to_withdraw(const std::string& text,
                                                            const std::vector<store::PublishedPort>& published);

}  // namespace sbx::sandbox
