// The services whose credentials sbx knows how to add to a request, as data. Pure.
#pragma once

#include <span>
#include <string_view>

namespace sbx::secret {

// Into requests for `domains`: `header` set to `format` with %s replaced, or, where `basic_user` is not empty, Basic
// authorization with that user name.
struct Injection {
  std::span<const std::string_view> domains;
  std::string_view header;
  std::string_view format;
  std::string_view basic_user;
};

struct Service {
  std::string_view name;
  std::span<const std::string_view> environment;  // the variables its clients read; in order of preference
  std::span<const Injection> injections;
};

// An OAuth login that a client makes inside the sandbox: the gateway keeps the tokens of the token endpoint's answers
// and gives the client sentinels, which it replaces in requests to `domains`.
struct TokenEndpoint {
  std::string_view host, path;
};
struct OAuthFlow {
  std::string_view service;
  std::span<const TokenEndpoint> endpoints;
  std::span<const std::string_view> domains;
  std::string_view access_sentinel;
  std::string_view refresh_sentinel;
};

std::span<const Service> services();
std::span<const OAuthFlow> oauth_flows();
// nullptr for a name that is no service.
const Service* find_service(std::string_view name);
const OAuthFlow* find_oauth_flow(std::string_view service);

// What the variables of a service hold in a sandbox.
inline constexpr std::string_view kSentinel = "proxy-managed";

}  // namespace sbx::secret
