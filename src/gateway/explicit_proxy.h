// The HTTP proxy that a guest can ask explicitly, at gateway.docker.internal:3128: CONNECT, and requests in
// absolute-form for http:// URLs. One executor.
#pragma once

#include <memory>
#include <string_view>

#include "gateway/gateway.h"

namespace sbx::gateway {

inline constexpr std::string_view kProxyName = "gateway.docker.internal";
inline constexpr std::uint16_t kProxyPort = 3128;

// `tunnel` has been accepted.
Awaitable<void> serve_proxy(Gateway& gateway, std::shared_ptr<wire::Http2Stream> tunnel);

}  // namespace sbx::gateway
