#include "secret/request.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <set>

namespace sbx::secret {
namespace {

using nlohmann::json;

Result<Record> parse(const json& head, const std::string& value = "a-value") {
  return parse_request(head, LockedString::copy_of(value).value());
}
std::string refusal(const json& head, const std::string& value = "a-value") {
  auto record = parse(head, value);
  return record ? "" : record.error().message;
}

TEST(SecretRequest, AcceptsAServiceAndTrimsAPipesNewline) {
  const auto record = parse({{"type", "service"}, {"name", "github"}}, "ghp_x\r\n");
  ASSERT_TRUE(record) << record.error().message;
  EXPECT_EQ(record->scope, kGlobalScope);
  EXPECT_EQ(record->value.reveal(), "ghp_x");
}

TEST(SecretRequest, RefusesValuesThatCouldBreakOutOfAHeader) {
  const json head = {{"type", "service"}, {"name", "github"}};
  for (const std::string& bad :
       {std::string(), std::string(" \n"), std::string("a\r\nX-Evil: 1"), std::string("a\nb"), std::string("a\0b", 3),
        std::string("a\x7f"), std::string("a\x80"), std::string("\xc0\xaf"), std::string("\xed\xa0\x80"),
        std::string("\xf4\x90\x80\x80"), std::string("\xe2\x82"), std::string(16 * 1024 + 1, 'x')})
    EXPECT_NE(refusal(head, bad), "") << bad.substr(0, 20);
  EXPECT_EQ(refusal(head, "gr\xc3\xbc\xc3\x9f e"), "");
}

TEST(SecretRequest, RefusesServicesItDoesNotKnowAndNamesThatAreReserved) {
  EXPECT_NE(refusal({{"type", "service"}, {"name", "nobody"}}).find("anthropic, cursor"), std::string::npos);
  EXPECT_NE(refusal({{"type", "service"}, {"name", "mcp:x"}}).find("reserved"), std::string::npos);
  EXPECT_NE(refusal({{"type", "service"}, {"name", "github"}, {"scope", "host-only"}}), "");
  EXPECT_NE(refusal({{"type", "other"}, {"name", "github"}}), "");
  EXPECT_NE(refusal(json::array()), "");
  EXPECT_NE(refusal({{"type", "service"}, {"name", 7}}), "");
}

TEST(SecretRequest, TakesAReferenceOrACommandOrAValue) {
  const json base = {{"type", "service"}, {"name", "openai"}};
  json head = base;
  head["ref"] = "op://v/i/f";
  auto record = parse(head, "");
  ASSERT_TRUE(record) << record.error().message;
  EXPECT_EQ(record->source, Source::kReference);
  EXPECT_EQ(record->refresh_s, 55 * 60);
  EXPECT_NE(refusal(head, "value"), "");
  head["command"] = "pass x";
  EXPECT_NE(refusal(head, ""), "");
  head.erase("ref");
  head["refresh_s"] = 0;
  record = parse(head, "");
  ASSERT_TRUE(record);
  EXPECT_EQ(record->source, Source::kCommand);
  EXPECT_EQ(record->refresh_s, 0);
  head["refresh_s"] = -5;
  EXPECT_NE(refusal(head, ""), "");
  head = base;
  head["ref"] = "--help";
  EXPECT_NE(refusal(head, ""), "");
}

TEST(SecretRequest, ChecksWhereACustomSecretGoes) {
  const auto with = [](const json& targets, const std::string& env = "MY_TOKEN") {
    return json{{"type", "custom"}, {"name", env}, {"targets", targets}};
  };
  auto record = parse(with({"API.example.com", "**.example.com", "api.example.com"}));
  ASSERT_TRUE(record) << record.error().message;
  EXPECT_EQ(record->targets, (std::vector<std::string>{"api.example.com", "**.example.com"}));
  record = parse(with({"localhost:8443", "**.Example.com:443"}));
  ASSERT_TRUE(record) << record.error().message;
  EXPECT_EQ(record->targets, (std::vector<std::string>{"localhost:8443", "**.example.com:443"}));
  EXPECT_TRUE(record->placeholder.starts_with("sbx-cs-"));
  EXPECT_EQ(record->placeholder.size(), 7U + 16U);
  EXPECT_FALSE(record->in_body);
  for (const char* bad : {"*",       "**",        "*.com", "**.com",  "",        "a b",        "a..b",  ".a",
                          "a.",      "-a.b",      "a.*",   "a.*.b",   "***.a.b", "http://a.b", "a.b:",  "a.b:0",
                          "a.b:080", "a.b:65536", "a.b:x", "a.b:1:2", ":443",    "*.com:443",  "a.b/x", "a.b\n"})
    EXPECT_NE(refusal(with({bad})), "") << bad;
  EXPECT_NE(refusal(with(json::array())), "");
  for (const char* bad : {"", "1A", "A-B", "SBX_X", "DOCKER_X", "PATH", "HTTP_PROXY", "LD_PRELOAD", "A=B"})
    EXPECT_NE(refusal(with({"a.example.com"}, bad)), "") << bad;
}

TEST(SecretRequest, MakesPlaceholdersOfTheAskedShape) {
  std::set<std::string> seen;
  for (int i = 0; i < 50; ++i) {
    const std::string text = make_placeholder("ghp_{rand:36}").value();
    EXPECT_EQ(text.size(), 40U);
    EXPECT_TRUE(text.starts_with("ghp_"));
    EXPECT_TRUE(seen.insert(text).second);
  }
  EXPECT_EQ(make_placeholder("fixed-placeholder").value(), "fixed-placeholder");
  for (const char* bad :
       {"short", "{rand", "{rand:}", "{rand:7}", "{rand:x}", "{rand:9999}", "with blank {rand}", "{random}"})
    EXPECT_FALSE(make_placeholder(bad)) << bad;
}

TEST(SecretRequest, ChecksARegistry) {
  json head = {{"type", "registry"}, {"name", "ghcr.io"}, {"scope", "host-only"}, {"username", "me"}};
  EXPECT_EQ(refusal(head), "");
  head["auth_endpoint"] = "https://auth.example.com/token";
  EXPECT_EQ(refusal(head), "");
  head["auth_endpoint"] = "http://auth.example.com/token";
  EXPECT_NE(refusal(head), "");
  head.erase("auth_endpoint");
  head["username"] = "a:b";
  EXPECT_NE(refusal(head), "");
  head["username"] = "me";
  for (const char* bad : {"https://ghcr.io", "a:b:c", "a:", "a..b", "*.ghcr.io", "a:123456", ":1"}) {
    head["name"] = bad;
    EXPECT_NE(refusal(head), "") << bad;
  }
  for (const char* good : {"localhost:5000", "ghcr.io", "192.0.2.7:443"}) {
    head["name"] = good;
    EXPECT_EQ(refusal(head), "") << good;
  }
  head["username"] = "";
  EXPECT_EQ(refusal(head), "");
  head["scope"] = "global";
  EXPECT_NE(refusal(head), "") << "a gateway could do nothing with it";
}

}  // namespace
}  // namespace sbx::secret
