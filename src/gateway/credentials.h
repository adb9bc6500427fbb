// The credentials that a gateway adds for its guest, and takes out of what comes back (GatewayConfig.credentials,
// docs/development/protocols.md). Values live in SecretValues. One executor.
#pragma once

#include <deque>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "gateway/http1_head.h"
#include "gateway/replacer.h"
#include "gateway/secret_value.h"
#include "policy/pattern.h"

namespace sbx::gateway {

// The tokens of one login done in the sandbox. They change while the gateway runs.
struct OauthLogin {
  struct Endpoint {
    std::string host, path;
  };
  std::string service;
  std::vector<Endpoint> endpoints;
  SecretValue access;
  SecretValue refresh;
  std::string access_sentinel;
  std::string refresh_sentinel;
  std::uint64_t generation = 0;  // the daemon's: another number, another login
  std::uint64_t changed = 0;     // the number of the last change that this gateway saw; 0: as it was configured
  bool has_endpoint(std::string_view host, std::string_view path) const;
};

// What one request needs: made by Credentials::apply(), used until its response has ended.
struct RequestSecrets {
  Replacer request_body;
  Replacer response;  // keeps lengths, so that no framing changes
  // Set when the response is a token endpoint's: its tokens are kept here and the guest gets the sentinels.
  std::shared_ptr<OauthLogin> login;
  bool any() const { return !owned.empty() || login != nullptr; }
  std::deque<SecretValue> owned;         // what the replacers look at
  std::deque<std::string> owned_public;  // the same for placeholders and masks
};

class Credentials {
 public:
  Credentials() = default;
  // kInvalid names the entry, never its value.
  static Result<Credentials> from_json(const nlohmann::json& list);

  // Whether requests to this host have to be seen.
  bool concern(std::string_view host, std::uint16_t port) const;
  // Puts values into the head of a request to `host`, which must be sent over verified TLS. `path` is with its query.
  std::unique_ptr<RequestSecrets> apply(std::string_view host, std::uint16_t port, std::string& path,
                                        HeaderList& headers) const;
  // Logins of `older` to services that are known here too, of the same generation, stay the objects that they are:
  // responses under way end in them. Their tokens stay as well where they have changed since the change number `seen`;
  // else those here are newer. Of another generation: the older login was removed, and what still comes for it is
  // nobody's.
  void adopt_logins(const Credentials& older, std::uint64_t seen);
  std::vector<std::shared_ptr<OauthLogin>> logins() const;

 private:
  struct Entry {
    std::vector<policy::Pattern> domains;
    // Service: the header is overwritten. `value` is the field's whole value, `raw` the credential alone.
    std::string header;
    SecretValue value;
    SecretValue raw;
    // Custom: the placeholder is replaced by raw.
    std::string placeholder;
    bool in_body = false;
    bool keep_bearer = false;  // service: a request that has a bearer token keeps it
    std::shared_ptr<OauthLogin> login;
  };
  static Result<Entry> parse(const nlohmann::json& item);
  bool matches(const Entry& entry, std::string_view host, std::uint16_t port) const;

  std::vector<std::shared_ptr<Entry>> entries_;
};

}  // namespace sbx::gateway
