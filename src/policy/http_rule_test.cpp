#include "policy/http_rule.h"

#include <gtest/gtest.h>

#include "rapidcheck/gtest.h"

namespace sbx::policy {
namespace {

bool matches(const std::string& pattern, const std::string& path) {
  const auto parsed = PathPattern::parse(pattern);
  EXPECT_TRUE(parsed) << pattern;
  const auto canonical = canonical_path(path);
  return parsed && canonical && parsed->matches(*canonical);
}

TEST(PathPattern, MatchesWholePaths) {
  EXPECT_TRUE(matches("/repos", "/repos"));
  EXPECT_TRUE(matches("/repos", "/repos/?q=1"));
  EXPECT_FALSE(matches("/repos", "/repos/x"));
  EXPECT_FALSE(matches("/repos", "/Repos"));
  EXPECT_TRUE(matches("/", "/"));
  EXPECT_TRUE(matches("/repos/*/issues", "/repos/acme/issues"));
  EXPECT_FALSE(matches("/repos/*/issues", "/repos/a/b/issues"));
  EXPECT_TRUE(matches("/repos/**", "/repos"));
  EXPECT_TRUE(matches("/repos/**", "/repos/a/b/c"));
  EXPECT_FALSE(matches("/repos/**", "/reposx"));
  EXPECT_TRUE(matches("/a/**/z", "/a/b/c/z"));
  EXPECT_TRUE(matches("/a/**/z", "/a/z"));
  EXPECT_FALSE(matches("/a/**/z", "/a/z/y"));
  EXPECT_TRUE(matches("/**", "/"));
  EXPECT_TRUE(matches("/caf/**", "/%63af/x"));
}

TEST(CanonicalPath, RefusesWhatTwoServersCouldReadInTwoWays) {
  for (const char* path : {"",      "repos",  "*",      "/a/../b", "/a/./b",    "/a//b",  "//a",   "/a//",
                           "/a\\b", "/a%2fb", "/a%2Fb", "/a%5cb",  "/%2e%2e/b", "/a/%2e", "/a%",   "/a%2",
                           "/a%zz", "/a%00",  "/a%0a",  "/a%252e", "/..;x/b",   "/a/..",  "/;x/b", "https://x/y"})
    EXPECT_FALSE(canonical_path(path)) << path;
  EXPECT_EQ(canonical_path("/a/"), "/a");
  EXPECT_EQ(canonical_path("/a;v=1/b"), "/a;v=1/b");
  EXPECT_EQ(canonical_path("/a...b/%7Euser"), "/a...b/~user");
}

RC_GTEST_PROP(CanonicalPath, NeverYieldsDotOrEmptySegments, ()) {
  const auto path = *rc::gen::container<std::string>(rc::gen::elementOf(std::string("/.%2eEfF5cCa;?\\")));
  const auto canonical = canonical_path("/" + path);
  if (!canonical || *canonical == "/") return;
  const std::string framed = *canonical + "/";
  for (const char* bad : {"//", "/./", "/../", "\\"}) RC_ASSERT(framed.find(bad) == std::string::npos);
}

TEST(PathPattern, RefusesWhatIsNotCanonical) {
  for (const char* text : {"", "x", "/a/", "//", "/a//b", "/a/../b", "/.", "/a?x", "/a#x", "/%61", "/a b", "/a**",
                           "/a/**b", "/a[", "/a;b", "/\xc3\xbc"})
    EXPECT_FALSE(PathPattern::parse(text)) << text;
}

TEST(Method, IsOneOfTheKnownOnesInAnyCase) {
  EXPECT_EQ(parse_method("get").value_or("-"), "GET");
  EXPECT_EQ(parse_method("Any").value_or("-"), "");
  for (const char* text : {"", "FETCH", "GET ", "GET,POST"}) EXPECT_FALSE(parse_method(text)) << text;
}

}  // namespace
}  // namespace sbx::policy
