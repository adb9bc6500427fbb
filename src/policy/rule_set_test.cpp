#include "policy/rule_set.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "rapidcheck/gtest.h"

namespace sbx::policy {
namespace {

using nlohmann::json;

json rule(const std::string& decision, std::vector<std::string> resources, json more = json::object()) {
  json object = {{"id", "id-" + decision}, {"name", decision + " " + resources.front()}, {"origin", "local"}};
  object["decision"] = decision;
  object["resources"] = resources;
  object.update(more);
  return object;
}

RuleSet rules(std::vector<json> list) {
  const auto set = RuleSet::from_json(json{{"rules", list}});
  EXPECT_TRUE(set) << set.error().describe();
  return set.value_or(RuleSet());
}

Target to(std::string host, std::uint16_t port = 443) {
  Target target;
  target.host = std::move(host);
  target.port = port;
  return target;
}

Target request(std::string host, std::string method, std::string path) {
  Target target = to(std::move(host));
  target.method = std::move(method);
  target.path = std::move(path);
  return target;
}

Address at(const std::string& text) { return boost::asio::ip::make_address(text); }

TEST(RuleSet, DeniesWhatNoRuleAllows) {
  const Decision decision = RuleSet().decide(to("example.com"));
  EXPECT_FALSE(decision.allowed);
  EXPECT_EQ(decision.rule, "");
  EXPECT_EQ(decision.reason, "no rule allows it");
}

TEST(RuleSet, ADenyBeatsEveryAllowWhateverTheirOrder) {
  const auto set = rules({rule("allow", {"**.example.com"}), rule("deny", {"bad.example.com"}), rule("allow", {"**"})});
  EXPECT_TRUE(set.decide(to("example.com")).allowed);
  const Decision decision = set.decide(to("BAD.example.com."));
  EXPECT_FALSE(decision.allowed);
  EXPECT_EQ(decision.rule, "deny bad.example.com");
  EXPECT_EQ(decision.origin, "local");
}

TEST(RuleSet, HonoursPortsAndProtocols) {
  const auto set = rules({rule("allow", {"a.com:443"}), rule("allow", {"u.com"}, {{"protocols", {"udp"}}})});
  EXPECT_TRUE(set.decide(to("a.com", 443)).allowed);
  EXPECT_FALSE(set.decide(to("a.com", 80)).allowed);
  Target udp = to("u.com");
  EXPECT_FALSE(set.decide(udp).allowed);
  udp.protocol = Protocol::kUdp;
  EXPECT_TRUE(set.decide(udp).allowed);
  udp.host = "a.com";
  EXPECT_FALSE(set.decide(udp).allowed) << "allow means TCP unless it says otherwise";
}

TEST(RuleSet, EverythingIsNeitherTheHostNorSpecialAddresses) {
  const auto set = rules({rule("allow", {"**", "0.0.0.0/0", "::/0", "*.docker.internal", "**.internal"})});
  EXPECT_TRUE(set.decide(to("example.com")).allowed);
  EXPECT_TRUE(set.decide(to("8.8.8.8")).allowed);
  for (const char* host : {"localhost",
                           "LOCALHOST.",
                           "host.docker.internal",
                           "127.0.0.1",
                           "127.1",
                           "2130706433",
                           "0x7f000001",
                           "[::1]",
                           "::ffff:127.0.0.1",
                           "0.0.0.0",
                           "0",
                           "127.9.9.9",
                           "10.0.0.1",
                           "192.168.0.1",
                           "169.254.169.254",
                           "fd00:ec2::254",
                           "64:ff9b::169.254.169.254",
                           "198.18.0.7",
                           "224.0.0.1",
                           "fe80::1",
                           "100.64.0.1"})
    EXPECT_FALSE(set.decide(to(host)).allowed) << host;
}

TEST(RuleSet, TheHostIsOpenedByItsPortOnly) {
  const auto set = rules({rule("allow", {"localhost:8080", "localhost"})});
  for (const char* host : {"localhost", "host.docker.internal", "127.0.0.1", "::1", "127.1"}) {
    EXPECT_TRUE(set.decide(to(host, 8080)).allowed) << host;
    EXPECT_FALSE(set.decide(to(host, 8081)).allowed) << host;
  }
  EXPECT_FALSE(set.decide(to("127.0.0.2", 8080)).allowed);
}

TEST(RuleSet, ADenyForOneNameOfTheHostIsADenyForAll) {
  for (const char* denied :
       {"host.docker.internal", "localhost:8080", "127.0.0.1", "127.0.0.0/8", "[::1]", "*.docker.internal"}) {
    const auto set = rules({rule("allow", {"localhost:8080"}), rule("deny", {denied})});
    for (const char* host : {"localhost", "host.docker.internal", "127.0.0.1", "::1"})
      EXPECT_FALSE(set.decide(to(host, 8080)).allowed) << denied << " against " << host;
  }
}

TEST(RuleSet, SpecialAddressesAreOpenedByRulesWithinTheirRange) {
  EXPECT_TRUE(rules({rule("allow", {"10.0.0.0/8"})}).decide(to("10.1.2.3")).allowed);
  EXPECT_TRUE(rules({rule("allow", {"10.1.2.3:5432"})}).decide(to("10.1.2.3", 5432)).allowed);
  EXPECT_TRUE(rules({rule("allow", {"10.0.0.0/8"})}).decide(to("64:ff9b::10.1.2.3")).allowed);
  EXPECT_FALSE(rules({rule("allow", {"8.0.0.0/5"})}).decide(to("10.1.2.3")).allowed);
  EXPECT_FALSE(rules({rule("allow", {"169.254.0.0/16"})}).decide(to("169.254.169.254")).allowed) << "metadata";
  EXPECT_TRUE(rules({rule("allow", {"169.254.169.254"})}).decide(to("169.254.169.254")).allowed);
  EXPECT_FALSE(rules({rule("allow", {"64:ff9b::/96"})}).decide(to("64:ff9b::10.1.2.3")).allowed);
  EXPECT_FALSE(
      rules({rule("allow", {"10.0.0.0/8"}), rule("deny", {"10.1.0.0/16"})}).decide(to("::ffff:10.1.2.3")).allowed);
}

TEST(RuleSet, JudgesWhereANameReallyLed) {
  const auto set = rules(
      {rule("allow", {"**"}), rule("deny", {"93.184.0.0/16"}), rule("allow", {"192.168.7.0/24", "localhost:443"})});
  EXPECT_TRUE(set.decide_address(to("example.com"), at("8.8.8.8")).allowed);
  EXPECT_TRUE(set.decide_address(to("example.com"), at("93.184.1.1")).allowed) << "the name decides before networks";
  for (const char* address : {"127.0.0.1", "::1", "::ffff:127.0.0.1", "10.0.0.1", "169.254.169.254", "0.0.0.0",
                              "fe80::1", "64:ff9b::7f00:1", "198.18.1.1", "::ffff:10.0.0.1"}) {
    const Decision decision = set.decide_address(to("example.com"), at(address));
    EXPECT_FALSE(decision.allowed) << address;
    EXPECT_FALSE(decision.reason.empty());
  }
  EXPECT_TRUE(set.decide_address(to("intranet.corp"), at("192.168.7.9")).allowed);
  EXPECT_FALSE(set.decide_address(to("intranet.corp"), at("192.168.8.9")).allowed);
  EXPECT_TRUE(set.decide_address(to("localhost"), at("127.0.0.1")).allowed);
  EXPECT_TRUE(set.decide_address(to("host.docker.internal"), at("::1")).allowed);
  EXPECT_FALSE(set.decide_address(to("localhost", 80), at("127.0.0.1")).allowed);
  EXPECT_FALSE(set.decide_address(to("localhost"), at("10.0.0.1")).allowed);
  EXPECT_FALSE(set.decide_address(to("8.8.8.8"), at("8.8.4.4")).allowed);
  EXPECT_FALSE(RuleSet().decide_address(to("example.com"), at("8.8.8.8")).allowed);
}

TEST(RuleSet, AnAddressOfTheHostItselfIsReachedByARuleForItAlone) {
  const auto open = rules({rule("allow", {"**"})});
  EXPECT_FALSE(open.decide_own_address(to("example.com"), at("8.8.8.8")).allowed);
  EXPECT_FALSE(open.decide_own_address(to("8.8.8.8"), at("8.8.8.8")).allowed);
  EXPECT_FALSE(open.decide_own_address(to("10.1.1.1"), at("10.1.1.1")).allowed);
  const auto wide = rules({rule("allow", {"example.com"}), rule("allow", {"8.8.8.0/24"})});
  EXPECT_FALSE(wide.decide_own_address(to("example.com"), at("8.8.8.8")).allowed);
  EXPECT_FALSE(wide.decide_own_address(to("8.8.8.8"), at("8.8.8.8")).allowed);
  const auto named = rules({rule("allow", {"example.com"}), rule("allow", {"8.8.8.8:443"})});
  EXPECT_TRUE(named.decide_own_address(to("example.com"), at("8.8.8.8")).allowed);
  EXPECT_TRUE(named.decide_own_address(to("8.8.8.8"), at("::ffff:8.8.8.8")).allowed);
  EXPECT_FALSE(named.decide_own_address(to("example.com", 80), at("8.8.8.8")).allowed);
  EXPECT_FALSE(named.decide_own_address(to("other.com"), at("8.8.8.8")).allowed);
  const auto denied = rules({rule("allow", {"8.8.8.8"}), rule("deny", {"8.8.8.8:443"})});
  EXPECT_FALSE(denied.decide_own_address(to("8.8.8.8"), at("8.8.8.8")).allowed);
  // The host's loopback has rules of its own.
  const auto service = rules({rule("allow", {"localhost:443"})});
  EXPECT_TRUE(service.decide_own_address(to("localhost"), at("127.0.0.1")).allowed);
}

TEST(RuleSet, HttpRulesJudgeRequests) {
  const auto set = rules({rule("allow", {"api.com"}, {{"methods", {"GET", "HEAD"}}, {"paths", {"/repos/**"}}})});
  EXPECT_TRUE(set.needs_http("API.com", 443));
  EXPECT_FALSE(set.needs_http("other.com", 443));
  EXPECT_TRUE(set.decide(to("api.com")).allowed) << "the connection; its requests are judged one by one";
  EXPECT_TRUE(set.decide(request("api.com", "GET", "/repos/x?y=1")).allowed);
  EXPECT_FALSE(set.decide(request("api.com", "POST", "/repos/x")).allowed);
  EXPECT_FALSE(set.decide(request("api.com", "get", "/repos/x")).allowed);
  EXPECT_FALSE(set.decide(request("api.com", "GET", "/user")).allowed);
  EXPECT_FALSE(set.decide(request("api.com", "GET", "/repos/../user")).allowed);
  EXPECT_FALSE(set.decide(request("api.com", "GET", "/repos/%2e%2e/user")).allowed);
  EXPECT_FALSE(set.decide(request("api.com", "GET", "")).allowed);
}

TEST(RuleSet, HttpDeniesCutOutOfWhatIsAllowed) {
  const auto set = rules({rule("allow", {"**"}), rule("deny", {"api.com"}, {{"methods", {"DELETE"}}}),
                          rule("deny", {"api.com"}, {{"paths", {"/admin/**"}}})});
  EXPECT_TRUE(set.needs_http("api.com", 443));
  EXPECT_TRUE(set.decide(to("api.com")).allowed);
  EXPECT_TRUE(set.decide(request("api.com", "GET", "/x")).allowed);
  EXPECT_FALSE(set.decide(request("api.com", "DELETE", "/x")).allowed);
  EXPECT_FALSE(set.decide(request("api.com", "delete", "/x")).allowed);
  EXPECT_FALSE(set.decide(request("api.com", "GET", "/admin/x")).allowed);
  EXPECT_FALSE(set.decide(request("api.com", "GET", "/x/../admin")).allowed) << "in doubt denied";
  Target udp = to("api.com");
  udp.protocol = Protocol::kUdp;
  EXPECT_FALSE(set.decide(udp).allowed) << "HTTP/3 would pass unseen";
}

TEST(RuleSet, HttpIsNeededOnlyWhereItDecides) {
  const json get = {{"methods", {"GET"}}};
  EXPECT_FALSE(rules({rule("allow", {"a.com"}, get), rule("allow", {"**"})}).needs_http("a.com", 443));
  EXPECT_FALSE(rules({rule("deny", {"a.com"}, get), rule("deny", {"**"})}).needs_http("a.com", 443));
  EXPECT_FALSE(rules({rule("allow", {"a.com:443"}, get)}).needs_http("a.com", 80));
  EXPECT_FALSE(rules({rule("allow", {"a.com"}, {{"methods", {"ANY"}}})}).needs_http("a.com", 443));
}

TEST(RuleSet, RefusesADocumentThatIsWrongAnywhere) {
  const std::vector<json> wrong = {nullptr,
                                   json::array(),
                                   json::object(),
                                   {{"rules", 1}},
                                   {{"rules", {1}}},
                                   {{"rules", {json::object()}}},
                                   {{"rules", {rule("maybe", {"a.com"})}}},
                                   {{"rules", {rule("allow", {"*"})}}},
                                   {{"rules", {rule("allow", {"a.com"}, {{"protocols", {"icmp"}}})}}},
                                   {{"rules", {rule("allow", {"a.com"}, {{"methods", {"FETCH"}}})}}},
                                   {{"rules", {rule("allow", {"a.com"}, {{"paths", {"x"}}})}}},
                                   {{"rules", {rule("allow", {"10.0.0.0/8"}, {{"methods", {"GET"}}})}}},
                                   {{"rules", {rule("allow", {"a.com"}, {{"resources", json::array()}})}}},
                                   {{"rules", {rule("allow", {"a.com"}, {{"name", "line\nbreak"}})}}},
                                   {{"rules", {rule("allow", {"a.com"}, {{"name", 7}})}}}};
  for (const auto& document : wrong) EXPECT_FALSE(RuleSet::from_json(document)) << document;
}

TEST(RuleSet, DeniesHostsThatAreNone) {
  const auto set = rules({rule("allow", {"**"})});
  for (const char* host : {"", "a b", "a\r\nb",
                           "b\xc3\xbc"
                           "cher.de",
                           "1.2.3.4.5", "fe80::1%lo"}) {
    const Decision decision = set.decide(to(host));
    EXPECT_FALSE(decision.allowed) << host;
    EXPECT_EQ(decision.reason.find_first_of("\r\n"), std::string::npos);
  }
}

// For any rules and any target: adding a deny never allows more, adding an allow never overcomes a deny.
rc::Gen<json> any_rule(const std::string& decision) {
  const auto resource =
      rc::gen::element<std::string>("**", "a.com", "*.a.com", "**.a.com", "b.a.com:443", "10.0.0.0/8", "10.1.2.3:443",
                                    "localhost:443", "?.com", "8.8.8.8", "127.0.0.1:443", "169.254.169.254");
  return rc::gen::map(rc::gen::nonEmpty(rc::gen::container<std::vector<std::string>>(resource)),
                      [decision](const std::vector<std::string>& resources) { return rule(decision, resources); });
}

RC_GTEST_PROP(RuleSet, DeniesOnlyTakeAwayAndAllowsNeverOvercomeThem, ()) {
  std::vector<json> base = *rc::gen::container<std::vector<json>>(any_rule("allow"));
  const json deny = *any_rule("deny");
  const json allow = *any_rule("allow");
  const Target target =
      to(*rc::gen::element<std::string>("a.com", "b.a.com", "c.b.a.com", "x.com", "10.1.2.3", "8.8.8.8", "localhost",
                                        "127.0.0.1", "::1", "169.254.169.254", "127.1"),
         *rc::gen::element<std::uint16_t>(443, 80));
  const auto judged = [&](std::vector<json> list) { return rules(std::move(list)).decide(target).allowed; };
  const bool before = judged(base);
  auto with_deny = base;
  with_deny.push_back(deny);
  const bool denied = judged({deny, rule("allow", {"**", "localhost:443", "127.0.0.1:443", "localhost:80",
                                                   "127.0.0.1:80", "10.0.0.0/8", "169.254.169.254"})}) == false;
  RC_ASSERT(judged(with_deny) == (before && !denied));
  with_deny.push_back(allow);
  if (denied) RC_ASSERT(!judged(with_deny));
}

}  // namespace
}  // namespace sbx::policy
