// Attached commands: a WebSocket on the client's side, the keeper's POST /exec stream on the other.
//
// client -> daemon: first a text message with the command ({"argv":[...],...}); then binary messages: byte 0 and stdin,
//   or byte 1 and JSON: {"resize":{"rows","cols"}}, {"signal":N}, {"stdin_eof":true}.
// daemon -> client: text messages {"progress":"..."}, {"started":{"id"}}, {"credit":N} (bytes of stdin that have gone
// on:
//   a client that keeps at most kStdinWindow unacknowledged never blocks its own signals), {"error":{...}}; binary
//   messages: pieces of the stdcopy stream, the status frame last. Then the WebSocket is closed.
// A client that goes away resets the stream, which ends the command.
#pragma once

#include <boost/asio/local/stream_protocol.hpp>
#include <boost/beast/http/message.hpp>
#include <boost/beast/http/string_body.hpp>

#include "api/routes.h"

namespace sbx::api {

inline constexpr std::size_t kStdinWindow = 1U << 20U;

Awaitable<void> serve_attach(boost::asio::local::stream_protocol::socket socket,
                             const boost::beast::http::request<boost::beast::http::string_body>& upgrade,
                             Daemon& daemon, std::string name);

}  // namespace sbx::api
