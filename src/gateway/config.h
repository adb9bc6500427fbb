// GatewayConfig: all that sbxd tells a gateway (docs/development/protocols.md, "Gateway socket"). Immutable once made,
// but for the tokens of logins; replaced as a whole. One executor.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "gateway/credentials.h"
#include "gateway/tls_contexts.h"
#include "policy/rule_set.h"

namespace sbx::gateway {

struct UpstreamProxy {
  enum class Kind { kHttp, kSocks5 };
  Kind kind = Kind::kHttp;
  std::string host;
  std::uint16_t port = 0;
  std::string user;
  SecretValue password;
  std::vector<std::string> direct;  // no_proxy: names (and what is below them), addresses, networks, or "*"

  bool bypassed_for(std::string_view host) const;
};

struct GatewayConfig {
  std::string sandbox_id;
  std::string name;
  policy::RuleSet policy;
  // The ports that rules name, and one that none names: what "any port" means for a name.
  std::vector<std::uint16_t> ports;
  std::optional<GuestTls> guest_tls;  // without it nothing can be intercepted
  std::optional<UpstreamProxy> upstream_proxy;
  Credentials credentials;

  // Wipes `text`. kInvalid says what is wrong, and never a secret.
  static Result<std::shared_ptr<GatewayConfig>> parse(std::string text);
  // Whether some port of this name may be reached.
  bool names_host(const std::string& host) const;
};

}  // namespace sbx::gateway
