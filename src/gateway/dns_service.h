// Answers the guest's DNS queries (POST /dns-query, RFC 8484). An address query tells whether the name exists, by an
// address that means nothing: sbx-guest hands out its own. What policy denies is never looked up and "exists", so that
// the connection gets the refusal. One executor.
#pragma once

#include <memory>
#include <string>

#include "gateway/gateway.h"

namespace sbx::gateway {

// `message` is the query; the result is always an answer to send.
Awaitable<std::string> answer_dns(Gateway& gateway, std::string message);

Awaitable<void> serve_dns(Gateway& gateway, std::shared_ptr<wire::Http2Stream> stream);

}  // namespace sbx::gateway
