// The routes of the control port (docs/development/protocols.md).
#pragma once

#include <memory>

#include "guest/guest.h"
#include "wire/http2_session.h"

namespace sbx::guest {

// One request. `guest` outlives it.
Awaitable<void> handle_control_request(Guest& guest, std::shared_ptr<wire::Http2Stream> stream);

}  // namespace sbx::guest
