// The text of a GatewayConfig (docs/development/protocols.md, "Gateway socket"). Put together by hand where it holds
// secrets: no JSON library ever holds a value.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

#include "base/result.h"
#include "gateway/authority.h"

namespace sbx::sandbox {

struct GatewayConfigParts {
  std::string sandbox_id;
  std::string name;
  const nlohmann::json* policy = nullptr;  // a PolicyDocument
  gateway::CertifiedKey intermediate;
  std::string root;              // PEM
  std::string_view credentials;  // a JSON array, as text
};

// Wipe it after use. The upstream proxy is that of this process's environment (upstream_proxy()).
std::string gateway_config(const GatewayConfigParts& parts);

// {"url","no_proxy"} from HTTPS_PROXY, HTTP_PROXY or ALL_PROXY and NO_PROXY, in either case; null without.
nlohmann::json upstream_proxy();

}  // namespace sbx::sandbox
