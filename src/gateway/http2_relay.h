// The HTTP/2 requests of one guest connection, each judged and sent on over one HTTP/2 connection to the server.
// One executor.
#pragma once

#include <memory>

#include "gateway/http_exchange.h"

namespace sbx::gateway {

// Ends when either side's connection has. `server` is null where the origin is denied.
Awaitable<void> relay_http2(Gateway& gateway, HttpOrigin origin, std::shared_ptr<ByteStream> guest,
                            std::shared_ptr<ByteStream> server);

}  // namespace sbx::gateway
