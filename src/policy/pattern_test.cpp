#include "policy/pattern.h"

#include <gtest/gtest.h>

#include "policy/glob.h"
#include "rapidcheck/gtest.h"

namespace sbx::policy {
namespace {

bool matches(const std::string& pattern, const std::string& name) {
  const auto parsed = Pattern::parse(pattern);
  EXPECT_TRUE(parsed) << pattern << ": " << parsed.error().message;
  return parsed && parsed->matches_name(name);
}

TEST(Pattern, AnExactNameCoversNothingElse) {
  EXPECT_TRUE(matches("Example.com.", "example.com"));
  EXPECT_FALSE(matches("example.com", "www.example.com"));
  EXPECT_FALSE(matches("example.com", "example.com.evil.net"));
  EXPECT_FALSE(matches("example.com", "badexample.com"));
}

TEST(Pattern, OneStarIsExactlyOneLabel) {
  EXPECT_TRUE(matches("*.example.com", "a.example.com"));
  EXPECT_FALSE(matches("*.example.com", "example.com"));
  EXPECT_FALSE(matches("*.example.com", "a.b.example.com"));
  EXPECT_TRUE(matches("a.*.com", "a.b.com"));
}

TEST(Pattern, TwoStarsAreAnyDepthAndTheApex) {
  EXPECT_TRUE(matches("**.example.com", "example.com"));
  EXPECT_TRUE(matches("**.example.com", "a.example.com"));
  EXPECT_TRUE(matches("**.example.com", "a.b.c.example.com"));
  EXPECT_FALSE(matches("**.example.com", "badexample.com"));
  EXPECT_FALSE(matches("**.example.com", "example.com.evil.net"));
  EXPECT_TRUE(matches("**.ex?mple.com", "a.b.example.com"));
  EXPECT_TRUE(matches("**.ex?mple.com", "exbmple.com"));
  EXPECT_FALSE(matches("**.ex?mple.com", "mple.com"));
}

TEST(Pattern, WildcardsStayWithinALabel) {
  EXPECT_TRUE(matches("api?.x.com", "api1.x.com"));
  EXPECT_FALSE(matches("api?.x.com", "api.x.com"));
  EXPECT_FALSE(matches("api?.x.com", "api12.x.com"));
  EXPECT_TRUE(matches("api[12].x.com", "api2.x.com"));
  EXPECT_FALSE(matches("api[12].x.com", "api3.x.com"));
  EXPECT_TRUE(matches("api[!1].x.com", "api3.x.com"));
  EXPECT_FALSE(matches("api[!1].x.com", "api1.x.com"));
  EXPECT_FALSE(matches("api[!1].x.com", "api.x.com"));
  EXPECT_TRUE(matches("cdn-*.x.com", "cdn-eu-1.x.com"));
  EXPECT_FALSE(matches("cdn-*.x.com", "cdn-eu.1.x.com"));
  EXPECT_TRUE(matches("[a-f]x.com", "bx.com"));
}

TEST(Pattern, TakesAPort) {
  EXPECT_EQ(Pattern::parse("example.com:443")->port(), 443);
  EXPECT_EQ(Pattern::parse("example.com")->port(), std::nullopt);
  EXPECT_EQ(Pattern::parse("**:22")->port(), 22);
  EXPECT_EQ(Pattern::parse("[2001:db8::1]:443")->port(), 443);
  EXPECT_EQ(Pattern::parse("10.0.0.0/8:5432")->port(), 5432);
  EXPECT_EQ(Pattern::parse("[2001:db8::/32]:443")->port(), 443);
}

TEST(Pattern, HasOneSpelling) {
  EXPECT_EQ(Pattern::parse("**.Example.COM.:443")->text(), "**.example.com:443");
  EXPECT_EQ(Pattern::parse("2001:DB8:0::/32")->text(), "2001:db8::/32");
  EXPECT_EQ(Pattern::parse("[2001:DB8::0:1]")->text(), "[2001:db8::1]");
  EXPECT_EQ(Pattern::parse("10.0.0.1/32")->text(), "10.0.0.1");
  EXPECT_EQ(Pattern::parse("[::ffff:10.0.0.1]:80")->text(), "10.0.0.1:80");
  EXPECT_EQ(Pattern::parse("Host.Docker.Internal:80")->text(), "host.docker.internal:80");
}

TEST(Pattern, KnowsTheHostByBothNames) {
  EXPECT_EQ(Pattern::parse("localhost:8080")->kind(), Pattern::Kind::kHost);
  EXPECT_EQ(Pattern::parse("host.docker.internal:8080")->kind(), Pattern::Kind::kHost);
}

TEST(Pattern, RefusesWhatItDoesNotUnderstandAndSaysWhy) {
  for (const std::string text : {"",
                                 "*",
                                 "*:443",
                                 "***",
                                 "a.**",
                                 "a.**.com",
                                 "**com",
                                 "**.",
                                 "**.*",
                                 "*.*",
                                 "?",
                                 "[ab]",
                                 "a..com",
                                 ".com",
                                 "a b.com",
                                 "a,b.com",
                                 "https://example.com",
                                 "example.com/path",
                                 "example.com:0",
                                 "example.com:65536",
                                 "example.com:http",
                                 "example.com:",
                                 ":443",
                                 "2001:db8::1",
                                 "2001:db8::1:443",
                                 "[2001:db8::1",
                                 "[2001:db8::1]443",
                                 "[2001:db8::1]:",
                                 "10.0.0.1/8",
                                 "10.0.0.0/33",
                                 "10.0.0.*",
                                 "10.0.*",
                                 "127.1",
                                 "0x7f.1",
                                 "2130706433",
                                 "1.2.3.4.5",
                                 "fe80::/10%eth0",
                                 "[fe80::1%eth0]:80",
                                 "b\xc3\xbc"
                                 "cher.example",
                                 "a[.com",
                                 "a].com",
                                 "a[].com",
                                 "a[!].com",
                                 "a[z-a].com",
                                 "a[1!].com",
                                 "a!.com",
                                 "a^b.com",
                                 "a[^1].com",
                                 "**.localhost:80",
                                 "user@example.com",
                                 "~example.com",
                                 "example.com#"}) {
    const auto parsed = Pattern::parse(text);
    ASSERT_FALSE(parsed) << text << " was read as " << parsed->text();
    EXPECT_EQ(parsed.error().code, ErrorCode::kInvalid) << text;
    EXPECT_GT(parsed.error().message.size(), 20U) << text;
  }
  EXPECT_FALSE(Pattern::parse(std::string("a\0.com", 6)));
  EXPECT_FALSE(Pattern::parse(std::string(300, 'a')));
}

TEST(Pattern, ErrorsShowHostileTextEscaped) {
  const auto parsed = Pattern::parse("a\x1b[31m\n.com");
  ASSERT_FALSE(parsed);
  EXPECT_EQ(parsed.error().message.find_first_of("\x1b\n"), std::string::npos) << parsed.error().message;
}

RC_GTEST_PROP(Pattern, TheTextOfAPatternIsReadAsTheSamePattern, (const std::string& noise)) {
  const auto alphabet = std::string("ab1.*?[]!-:/0");
  const auto shaped = *rc::gen::container<std::string>(rc::gen::elementOf(alphabet));
  for (const auto& text : {noise, shaped, shaped + ".example.com", "**." + shaped}) {
    const auto once = Pattern::parse(text);
    if (!once) continue;
    const auto twice = Pattern::parse(once->text());
    RC_ASSERT(twice.has_value());
    RC_ASSERT(twice->text() == once->text());
    RC_ASSERT(twice->kind() == once->kind());
  }
}

// The obvious definition, exponential and all.
bool naive(std::string_view glob, std::string_view text) {
  if (glob.empty()) return text.empty();
  if (glob[0] == '*') return naive(glob.substr(1), text) || (!text.empty() && naive(glob, text.substr(1)));
  return !text.empty() && (glob[0] == '?' || glob[0] == text[0]) && naive(glob.substr(1), text.substr(1));
}

RC_GTEST_PROP(Glob, AgreesWithTheNaiveDefinition, ()) {
  const auto glob = *rc::gen::resize(8, rc::gen::container<std::string>(rc::gen::elementOf(std::string("ab*?"))));
  const auto text = *rc::gen::resize(12, rc::gen::container<std::string>(rc::gen::elementOf(std::string("ab"))));
  RC_ASSERT(glob_matches(glob, text) == naive(glob, text));
}

TEST(Glob, StaysQuickOnManyStars) {
  std::string glob;
  for (int i = 0; i < 30; ++i) glob += "*a";
  EXPECT_FALSE(glob_matches(glob, std::string(60, 'a') + "b"));
}

}  // namespace
}  // namespace sbx::policy
