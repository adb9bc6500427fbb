// One TCP connection of the guest, from what it asked for to its end: judged by name, dialled, then judged by what it
// turns out to be. TLS is read up to its ClientHello and passed on as it is unless something needs to see inside; HTTP
// is read request by request; anything else is passed on by name, port and address alone. One executor.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "gateway/gateway.h"
#include "wire/http2_session.h"

namespace sbx::gateway {

struct ConnectionRequest {
  std::shared_ptr<wire::Http2Stream> tunnel;
  policy::Target target;
  std::string early;      // what the guest has sent already
  bool by_proxy = false;  // asked for through the explicit proxy
  // Tells the guest that it is connected, or that it is not.
  std::function<Awaitable<Result<void>>()> accept;
  std::function<Awaitable<void>(const Error&)> refuse;
};

Awaitable<void> serve_connection(Gateway& gateway, ConnectionRequest request);

// A CONNECT of the network port.
Awaitable<void> serve_tunnel(Gateway& gateway, std::shared_ptr<wire::Http2Stream> tunnel);

}  // namespace sbx::gateway
