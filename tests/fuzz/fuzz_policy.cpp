// Patterns, host names, targets, request paths and whole policy documents. Beyond not crashing: what is read is written
// in one spelling, and no host name that a guest can claim makes a rule for ** open the host or a special address.
#include <cstdint>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "policy/http_rule.h"
#include "policy/rule_set.h"

namespace {

using namespace sbx::policy;

void require(bool holds) {
  if (!holds) std::abort();
}

const RuleSet& everything() {
  static const RuleSet kSet = *RuleSet::from_json(
      nlohmann::json::parse(R"({"rules":[{"id":"1","decision":"allow","resources":["**","0.0.0.0/0","::/0"]}]})"));
  return kSet;
}

void claim(std::string_view text) {
  const auto host = canonical_host(text);
  Target target;
  target.host = text;
  const Decision decision = everything().decide(target);
  if (!host) return require(!decision.allowed);
  require(canonical_host(*host).value_or("") == *host);
  const auto address = parse_address(*host);
  if (address && special_range(*address) != nullptr) require(!decision.allowed);
  for (const char* inside : {"127.0.0.1", "::1", "10.0.0.1", "169.254.169.254", "::ffff:127.0.0.1"})
    require(!everything().decide_address(target, boost::asio::ip::make_address(inside)).allowed);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const std::string_view text(reinterpret_cast<const char*>(data + 1), size - 1);
  switch (data[0] % 5) {
    case 0:
      if (const auto pattern = Pattern::parse(text)) {
        const auto again = Pattern::parse(pattern->text());
        require(again && again->text() == pattern->text());
        if (pattern->kind() == Pattern::Kind::kName) (void)pattern->matches_name("a.b.example.com");
      }
      break;
    case 1:
      claim(text);
      break;
    case 2:
      (void)parse_target(text);
      break;
    case 3: {
      const auto end = text.find('\n');
      const auto path = canonical_path(text.substr(0, end));
      if (path) require(path->starts_with('/') && path->find('\\') == std::string::npos);
      if (end == std::string_view::npos) break;
      if (const auto pattern = PathPattern::parse(text.substr(end + 1)); pattern && path) (void)pattern->matches(*path);
      break;
    }
    default: {
      const auto set = RuleSet::from_json(nlohmann::json::parse(text, nullptr, false));
      if (!set) break;
      Target target;
      target.host = "example.com";
      (void)set->decide(target);
      (void)set->needs_http("example.com", 443);
    }
  }
  return 0;
}
