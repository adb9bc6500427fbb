// The guest's end of published ports (docs/development/protocols.md, "Control port"): each CONNECT of the keeper's is a
// connection to a server on this guest's loopback, each CONNECT-UDP the packets of one client. One executor.
#pragma once

#include <memory>

#include "guest/async_event.h"
#include "wire/http2_session.h"

namespace sbx::guest {

// A request with the method CONNECT, to its end.
Awaitable<void> serve_forward(std::shared_ptr<wire::Http2Stream> stream);

}  // namespace sbx::guest
