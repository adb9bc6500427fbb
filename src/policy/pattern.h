// One resource of a rule. The forms:
//
//   example.com            that name, no subdomains
//   *.example.com          one label more; not example.com itself
//   **.example.com         example.com and every name below it
//   api?.x.com  api[12].x.com  api[!1].x.com  cdn-*.x.com     wildcards within a label
//   10.0.0.0/8  192.0.2.7  [2001:db8::1]  2001:db8::/32       addresses and networks
//   localhost              the host's own services; host.docker.internal means the same
//   **                     everything but special addresses and the host's services
//
// each with :PORT or without (any port); IPv6 takes its port behind brackets. Anything else is refused. Immutable; any
// thread.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "policy/address.h"
#include "policy/host.h"

namespace sbx::policy {

class Pattern {
 public:
  enum class Kind { kEverything, kName, kNetwork, kHost };

  // kInvalid says what is wrong with it and what to write instead.
  static Result<Pattern> parse(std::string_view text);

  Kind kind() const { return kind_; }
  std::optional<std::uint16_t> port() const { return port_; }
  // The one spelling of equal patterns: lower case, no trailing dot, addresses in their shortest form.
  const std::string& text() const { return text_; }

  // For kName: a canonical host name.
  bool matches_name(std::string_view name) const;
  // For kNetwork.
  const Network& network() const { return *network_; }

 private:
  Kind kind_ = Kind::kEverything;
  std::optional<std::uint16_t> port_;
  std::string text_;
  std::vector<std::string> labels_;  // kName; globs
  bool any_depth_ = false;           // kName: any number of labels before labels_
  bool literal_ = true;              // kName: labels_ hold no wildcards
  std::string name_;                 // labels_ joined
  std::optional<Network> network_;
};

}  // namespace sbx::policy
