// Asks an upstream proxy for a connection: HTTP CONNECT (RFC 9110 section 9.3.6) with Basic credentials, or SOCKS5
// (RFC 1928, RFC 1929) with the name left to the proxy to resolve.
#pragma once

#include <boost/asio/ip/tcp.hpp>

#include "gateway/config.h"
#include "gateway/streams.h"

namespace sbx::gateway {

// `socket` is connected to the proxy; at the end it leads to the target. kUnavailable with what the proxy answered,
// kTimeout when it does not.
Awaitable<Result<void>> connect_through(boost::asio::ip::tcp::socket& socket, const UpstreamProxy& proxy,
                                        const policy::Target& target);

}  // namespace sbx::gateway
