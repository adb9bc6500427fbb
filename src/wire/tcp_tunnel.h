// A TCP connection carried by a stream of HTTP/2 (CONNECT, RFC 9113 section 8.5), at either end of the session.
// One executor.
//
// A half-close, a reset and back-pressure are passed on in both directions; a connection on which nobody sends holds no
// buffer. What is held for one that is not read is the stream's window and one piece.
#pragma once

#include <boost/asio/ip/tcp.hpp>
#include <memory>

#include "wire/http2_session.h"

namespace sbx::wire {

using TcpSocket = std::shared_ptr<boost::asio::ip::tcp::socket>;

// close(2) that sends a reset instead of an orderly end.
void cut(boost::asio::ip::tcp::socket& socket);

// Moves bytes both ways until both directions have ended, one way or another. The stream is established: a server's has
// been answered, a client's has its answer.
Awaitable<void> carry(TcpSocket socket, std::shared_ptr<Http2Stream> stream);

}  // namespace sbx::wire
