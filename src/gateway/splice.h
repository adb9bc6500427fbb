// Moves bytes between a guest's tunnel and a server until both have ended, holding none while nobody sends. One
// executor.
#pragma once

#include <boost/asio/ip/tcp.hpp>
#include <memory>
#include <string>

#include "wire/http2_session.h"

namespace sbx::gateway {

using ServerSocket = std::shared_ptr<boost::asio::ip::tcp::socket>;

// Closes the socket when the tunnel has closed, whatever else is waiting for it.
void close_with(const boost::asio::any_io_executor& executor, std::shared_ptr<wire::Http2Stream> tunnel,
                ServerSocket socket);
// The server's direction; returns at its end. A failure resets the tunnel.
wire::Awaitable<void> download(std::shared_ptr<wire::Http2Stream> tunnel, ServerSocket socket);
// The guest's direction, after `early` that was read from it before. A reset is passed on as one.
wire::Awaitable<void> upload(std::shared_ptr<wire::Http2Stream> tunnel, ServerSocket socket, std::string early);

}  // namespace sbx::gateway
