// The gateway's socket for sbxd: PUT /config, GET /log, PUT /log/told, GET /logins, GET /status
// (docs/development/protocols.md, "Gateway socket"). One executor.
#pragma once

#include <boost/asio/local/stream_protocol.hpp>

#include "gateway/gateway.h"

namespace sbx::gateway {

// What /status tells that never changes.
struct ControlFacts {
  bool secrets_locked = false;
};

// Accepts connections for ever.
Awaitable<void> serve_control(Gateway& gateway, boost::asio::local::stream_protocol::acceptor acceptor,
                              ControlFacts facts);

}  // namespace sbx::gateway
