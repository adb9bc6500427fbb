// The policy of one sandbox, ready to judge: made of a PolicyDocument (docs/development/protocols.md), immutable, any
// thread. The gateway enforces with it and the daemon answers `policy check` with it.
//
// A rule that matches and denies wins over one that allows, and what no rule allows is denied. Some destinations are
// denied unless a rule names them, whatever else allows them: the host's own services (only localhost:PORT, or an
// address of 127.0.0.0/8 or ::1 with its port), and every special address (policy/address.h: private, link-local,
// metadata, other sandboxes, multicast ...) by an address or network that lies within its range.
//
// How a gateway asks, for a connection to NAME:PORT:
//   1. decide({NAME, PORT}): denied is final; NAME is then never looked up.
//   2. needs_http(NAME, PORT): if so the stream must be read as HTTP (TLS intercepted), each request judged by decide()
//      with its method and path; what cannot be read as HTTP is denied.
//   3. decide_address() for the address that was really connected to, before a byte is sent.
#pragma once

#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

#include "policy/pattern.h"

namespace sbx::policy {

struct Decision {
  bool allowed = false;
  std::string rule;    // name, else id, of the rule that decided; empty: none matched
  std::string origin;  // of that rule: "local", "default" or "kit"
  std::string reason;  // for people: one line, no control characters
};

class RuleSet {
 public:
  // No rules: everything is denied.
  RuleSet();
  // kInvalid names the rule that is wrong; half a policy is none.
  static Result<RuleSet> from_json(const nlohmann::json& policy_document);

  // Without a method, rules about methods and paths count as follows: one that allows makes the connection allowed
  // (its requests are judged one by one), one that denies says nothing about it.
  Decision decide(const Target& target) const;
  // Whether a rule about methods or paths has a say, so that the connection alone does not settle it.
  bool needs_http(std::string_view host, std::uint16_t port) const;
  // `named` as for decide(), `connected` what the connection really leads to. Denied where decide(named) is. An allowed
  // name is not held against deny rules for networks (its addresses change), but against the special ranges.
  Decision decide_address(const Target& named, const Address& connected) const;
  // The same for an address that is this host's own, whatever range it is in: only a rule for just that address (or
  // one that decide_address() asks for within a special range) lets it be reached.
  Decision decide_own_address(const Target& named, const Address& connected) const;

  // So that members of this class can be named in the .cpp only.
  struct Rule;

 private:
  std::shared_ptr<const std::vector<Rule>> rules_;  // denying ones first
};

}  // namespace sbx::policy
