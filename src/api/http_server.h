// The daemon's HTTP/1.1 server on a unix socket (Boost.Beast lives in http_server.cpp and exec_bridge.cpp only).
//
// A JSON route asked with "Accept: application/x-ndjson" answers 200 at once with lines: {"progress":"text"} as work
// goes on, at last {"result":{...}} or {"error":{"code","message"}}. Otherwise one JSON body and the status of its
// error code.
#pragma once

#include <boost/asio/local/stream_protocol.hpp>

#include "api/routes.h"

namespace sbx::api {

// Accepts connections for ever; each is a coroutine of its own. `listener` is bound and listening.
Awaitable<void> serve(boost::asio::local::stream_protocol::acceptor listener, Daemon& daemon);

}  // namespace sbx::api
