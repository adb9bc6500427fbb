// Opens connections to servers: by name, resolved on the host, or through the upstream proxy. What a name really leads
// to is judged before the first packet, address by address.
#pragma once

#include <boost/asio/ip/tcp.hpp>
#include <optional>

#include "gateway/gateway.h"

namespace sbx::gateway {

struct Dialed {
  // kNotFound, kUnavailable, kTimeout; kDenied if `denial` says so.
  Result<boost::asio::ip::tcp::socket> socket = fail(ErrorCode::kInternal, "not dialed");
  // What policy said to the addresses, where it let none pass.
  std::optional<policy::Decision> denial;
  // Empty behind an upstream proxy.
  std::optional<Gateway::Open::End> end;
};

// `target` has been allowed by decide().
Awaitable<Dialed> dial(Gateway& gateway, policy::Target target);

}  // namespace sbx::gateway
