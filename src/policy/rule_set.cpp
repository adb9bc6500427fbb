#include "policy/rule_set.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "policy/http_rule.h"

namespace sbx::policy {

using nlohmann::json;

struct RuleSet::Rule {
  std::string id, name, origin;
  bool deny = false;
  bool tcp = false, udp = false;
  std::vector<Pattern> resources;
  bool http = false;                 // says something about methods or paths
  std::vector<std::string> methods;  // empty: any
  std::vector<PathPattern> paths;    // empty: any
};

namespace {

using Rule = RuleSet::Rule;

constexpr std::size_t kMostRules = 10'000;
constexpr std::size_t kMostEntries = 10'000;  // of one list of one rule
constexpr std::size_t kLongestLabel = 256;

// A target, ready to be compared. The host's loopback has many names; a rule for one of them is a rule for all.
struct Subject {
  std::vector<std::string> names;
  std::vector<Address> addresses;
  bool host_itself = false;
  const SpecialRange* special = nullptr;
};

Subject subject_of(const std::string& host) {
  Subject subject;
  const auto address = parse_address(host);
  subject.host_itself = host == "localhost" || host == "127.0.0.1" || host == "::1";
  if (subject.host_itself) {
    subject.names = {"localhost", "host.docker.internal"};
    subject.addresses = {boost::asio::ip::address_v4::loopback(), boost::asio::ip::address_v6::loopback()};
  } else if (address) {
    subject.addresses = {*address};
    subject.special = special_range(*address);
    if (const auto inner = embedded_ipv4(*address)) subject.addresses.push_back(*inner);
  } else {
    subject.names = {host};
  }
  return subject;
}

// Whether an allowing rule for `network` means this special address, rather than happening to cover it.
bool names_special(const Network& network, const SpecialRange& special, const Address& address) {
  return special.network.contains(network) || network.text() == address.to_string();
}

bool allow_resource_matches(const Pattern& pattern, const Subject& subject) {
  switch (pattern.kind()) {
    case Pattern::Kind::kEverything:
      return !subject.host_itself && subject.special == nullptr;
    case Pattern::Kind::kHost:
      return subject.host_itself && pattern.port();
    case Pattern::Kind::kName:
      return !subject.host_itself &&
             std::ranges::any_of(subject.names, [&](const std::string& name) { return pattern.matches_name(name); });
    case Pattern::Kind::kNetwork:
      break;
  }
  const Network& network = pattern.network();
  return std::ranges::any_of(subject.addresses, [&](const Address& address) {
    if (!network.contains(address)) return false;
    const SpecialRange* special = special_range(address);
    if (special == nullptr) return subject.special == nullptr;
    return names_special(network, *special, address) && (!special->loopback || pattern.port());
  });
}

bool deny_resource_matches(const Pattern& pattern, const Subject& subject) {
  switch (pattern.kind()) {
    case Pattern::Kind::kEverything:
      return true;
    case Pattern::Kind::kHost:
      return subject.host_itself;
    case Pattern::Kind::kName:
      return std::ranges::any_of(subject.names, [&](const std::string& name) { return pattern.matches_name(name); });
    case Pattern::Kind::kNetwork:
      return std::ranges::any_of(subject.addresses,
                                 [&](const Address& address) { return pattern.network().contains(address); });
  }
  return true;
}

bool resources_match(const Rule& rule, const Subject& subject, std::uint16_t port) {
  return std::ranges::any_of(rule.resources, [&](const Pattern& pattern) {
    if (pattern.port() && *pattern.port() != port) return false;
    return rule.deny ? deny_resource_matches(pattern, subject) : allow_resource_matches(pattern, subject);
  });
}

bool same_method(const std::string& a, const std::string& b, bool exactly) {
  if (exactly || a.size() != b.size()) return a == b;
  return std::ranges::equal(a, b, [](char x, char y) { return (x | 0x20) == (y | 0x20); });
}

// Whether what a rule says about requests applies. In doubt (no canonical path, a method in odd case, HTTP that is not
// seen because it runs over UDP) a denying rule does and an allowing one does not.
bool request_matches(const Rule& rule, const Target& target) {
  if (!rule.http) return true;
  if (target.protocol == Protocol::kUdp) return rule.deny;
  if (!target.method) return !rule.deny;
  const auto is_method = [&](const std::string& method) { return same_method(method, *target.method, !rule.deny); };
  if (!rule.methods.empty() && std::ranges::none_of(rule.methods, is_method)) return false;
  if (rule.paths.empty()) return true;
  const auto path = canonical_path(target.path.value_or(""));
  if (!path) return rule.deny;
  return std::ranges::any_of(rule.paths, [&](const PathPattern& pattern) { return pattern.matches(*path); });
}

bool protocol_matches(const Rule& rule, Protocol protocol) { return protocol == Protocol::kTcp ? rule.tcp : rule.udp; }

Decision decided_by(const Rule& rule) {
  Decision decision;
  decision.allowed = !rule.deny;
  decision.rule = rule.name.empty() ? rule.id : rule.name;
  decision.origin = rule.origin;
  decision.reason = (rule.deny ? "denied by rule " : "allowed by rule ") + decision.rule;
  return decision;
}

Decision denied(std::string reason) {
  Decision decision;
  decision.reason = std::move(reason);
  return decision;
}

std::string no_rule_reason(const Subject& subject, const Target& target) {
  const std::string port = std::to_string(target.port);
  if (subject.host_itself) return "a service of the host; only a rule for localhost:" + port + " allows it";
  if (subject.special != nullptr) {
    return target.host + " is " + std::string(subject.special->what) +
           "; only a rule for this address or a network within " + subject.special->network.text() + " allows it";
  }
  return "no rule allows it";
}

// ---- reading a PolicyDocument ----

std::unexpected<Error> refuse(const Rule& rule, const std::string& why) {
  return fail(ErrorCode::kInvalid, "policy rule " + in_quotes(rule.name.empty() ? rule.id : rule.name) + ": " + why);
}

Result<std::string> label(const json& object, const char* key) {
  const auto found = object.find(key);
  if (found == object.end() || found->is_null()) return std::string();
  if (!found->is_string()) return fail(ErrorCode::kInvalid, std::string("policy rule: ") + key + " must be text");
  std::string text = found->get<std::string>();
  const auto is_control = [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; };
  if (text.size() > kLongestLabel || std::ranges::any_of(text, is_control))
    return fail(ErrorCode::kInvalid, std::string("policy rule: ") + key + " is too long or has control characters");
  return text;
}

Result<std::vector<std::string>> texts(const Rule& rule, const json& object, const char* key) {
  std::vector<std::string> list;
  const auto found = object.find(key);
  if (found == object.end() || found->is_null()) return list;
  if (!found->is_array() || found->size() > kMostEntries || !std::ranges::all_of(*found, &json::is_string))
    return refuse(rule, std::string(key) + " must be a list of texts");
  for (const auto& entry : *found) list.push_back(entry.get<std::string>());
  return list;
}

Result<void> read_protocols(Rule& rule, const json& object) {
  const auto protocols = SBX_TRY(texts(rule, object, "protocols"), "reading protocols");
  rule.tcp = protocols.empty();
  rule.udp = protocols.empty() && rule.deny;
  for (const auto& protocol : protocols) {
    if (protocol != "tcp" && protocol != "udp")
      return refuse(rule, "protocol " + in_quotes(protocol) + " is not known");
    (protocol == "tcp" ? rule.tcp : rule.udp) = true;
  }
  return {};
}

Result<void> read_http(Rule& rule, const json& object) {
  bool any_method = false;
  for (const auto& text : SBX_TRY(texts(rule, object, "methods"), "reading methods")) {
    auto method = SBX_TRY(parse_method(text), "reading rule " + in_quotes(rule.name));
    any_method = any_method || method.empty();
    rule.methods.push_back(std::move(method));
  }
  if (any_method) rule.methods.clear();
  for (const auto& text : SBX_TRY(texts(rule, object, "paths"), "reading paths"))
    rule.paths.push_back(SBX_TRY(PathPattern::parse(text), "reading rule " + in_quotes(rule.name)));
  rule.http = !rule.methods.empty() || !rule.paths.empty();
  const auto is_network = [](const Pattern& pattern) { return pattern.kind() == Pattern::Kind::kNetwork; };
  if (rule.http && std::ranges::any_of(rule.resources, is_network))
    return refuse(rule, "methods and paths go with host names, not with addresses");
  return {};
}

Result<Rule> read_rule(const json& object) {
  if (!object.is_object()) return fail(ErrorCode::kInvalid, "a policy rule must be an object");
  Rule rule;
  rule.id = SBX_TRY(label(object, "id"), "reading a rule");
  rule.name = SBX_TRY(label(object, "name"), "reading a rule");
  rule.origin = SBX_TRY(label(object, "origin"), "reading a rule");
  const std::string decision = SBX_TRY(label(object, "decision"), "reading a rule");
  if (decision != "allow" && decision != "deny") return refuse(rule, "the decision must be allow or deny");
  rule.deny = decision == "deny";
  for (const auto& text : SBX_TRY(texts(rule, object, "resources"), "reading resources"))
    rule.resources.push_back(SBX_TRY(Pattern::parse(text), "reading rule " + in_quotes(rule.name)));
  if (rule.resources.empty()) return refuse(rule, "it has no resources");
  SBX_CHECK(read_protocols(rule, object), "reading protocols");
  SBX_CHECK(read_http(rule, object), "reading methods and paths");
  return rule;
}

}  // namespace

RuleSet::RuleSet() : rules_(std::make_shared<const std::vector<Rule>>()) {}

Result<RuleSet> RuleSet::from_json(const json& policy_document) {
  const auto wrong = [] { return fail(ErrorCode::kInvalid, "a policy document is an object with a list \"rules\""); };
  if (!policy_document.is_object()) return wrong();
  const auto list = policy_document.find("rules");
  if (list == policy_document.end() || !list->is_array() || list->size() > kMostRules) return wrong();
  std::vector<Rule> rules;
  for (const auto& object : *list) rules.push_back(SBX_TRY(read_rule(object), "reading a policy"));
  std::ranges::stable_partition(rules, &Rule::deny);
  RuleSet set;
  set.rules_ = std::make_shared<const std::vector<Rule>>(std::move(rules));
  return set;
}

Decision RuleSet::decide(const Target& given) const {
  Target target = given;
  auto host = canonical_host(given.host);
  if (!host) return denied(host.error().message);
  target.host = std::move(*host);
  const Subject subject = subject_of(target.host);
  for (const Rule& rule : *rules_) {
    if (protocol_matches(rule, target.protocol) && resources_match(rule, subject, target.port) &&
        request_matches(rule, target)) {
      return decided_by(rule);
    }
  }
  return denied(no_rule_reason(subject, target));
}

bool RuleSet::needs_http(std::string_view given, std::uint16_t port) const {
  const auto host = canonical_host(given);
  if (!host) return false;
  const Subject subject = subject_of(*host);
  bool denies_some = false, allows_some = false, allows_all = false;
  for (const Rule& rule : *rules_) {
    if (!rule.tcp || !resources_match(rule, subject, port)) continue;
    if (rule.deny && !rule.http) return false;
    denies_some = denies_some || rule.deny;
    allows_some = allows_some || (!rule.deny && rule.http);
    allows_all = allows_all || (!rule.deny && !rule.http);
  }
  return denies_some || (allows_some && !allows_all);
}

Decision RuleSet::decide_address(const Target& named, const Address& given) const {
  Decision by_name = decide(named);
  if (!by_name.allowed) return by_name;
  const std::string host = *canonical_host(named.host);
  const Address connected = unmapped(given);
  const SpecialRange* special = special_range(connected);
  const auto literal = parse_address(host);
  if (literal && *literal != connected) return denied("connected to " + connected.to_string() + " instead of " + host);
  // An address that was asked for by number is settled, and so is the host's loopback by its names.
  if (special == nullptr || literal) return by_name;
  if (special->loopback) {
    if (host == "localhost") return by_name;
    return denied(in_quotes(host) + " resolved to " + connected.to_string() +
                  ", a service of the host, which only its own " + "name reaches");
  }
  Target by_address = named;
  by_address.host = connected.to_string();
  by_address.method.reset();
  Decision decision = decide(by_address);
  if (!decision.allowed && decision.rule.empty())
    decision.reason = in_quotes(host) + " resolved to it: " + decision.reason;
  return decision;
}

Decision RuleSet::decide_own_address(const Target& named, const Address& given) const {
  Decision decision = decide_address(named, given);
  const Address connected = unmapped(given);
  if (!decision.allowed || special_range(connected) != nullptr) return decision;
  Target by_address = named;
  by_address.host = connected.to_string();
  by_address.method.reset();
  decision = decide(by_address);
  if (!decision.allowed && !decision.rule.empty()) return decision;
  for (const Rule& rule : *rules_) {
    if (rule.deny || !protocol_matches(rule, named.protocol) || !request_matches(rule, by_address)) continue;
    const bool names_it = std::ranges::any_of(rule.resources, [&](const Pattern& pattern) {
      return pattern.kind() == Pattern::Kind::kNetwork && (!pattern.port() || *pattern.port() == named.port) &&
             pattern.network().text() == by_address.host;
    });
    if (names_it) return decided_by(rule);
  }
  return denied(in_quotes(named.host) + " leads to " + by_address.host +
                ", an address of this host; only a rule for this address alone allows it");
}

}  // namespace sbx::policy
