// The network port: an HTTP/2 server for the sandbox. What it may hold is bounded; a guest that breaks the protocol or
// floods ends its own session. One executor.
#pragma once

#include <boost/asio/posix/stream_descriptor.hpp>

#include "gateway/gateway.h"
#include "gateway/ssh_agent.h"

namespace sbx::gateway {

// Resynchronises the connected port and serves it until it closes. The Result says why.
Awaitable<Result<void>> serve_guest(Gateway& gateway, SshAgent& ssh_agent, boost::asio::posix::stream_descriptor port,
                                    std::chrono::milliseconds resync_within);

}  // namespace sbx::gateway
