// Every documented route of a daemon without sandboxes; and nothing that is not documented.
#include <gtest/gtest.h>
#include <stdlib.h>

#include <algorithm>
#include <set>

#include "instance.h"
#include "openapi.h"

namespace sbx::test {
namespace {

TEST(OpenApiRoutes, AnswerAsDocumentedAndThereAreNoOthers) {
  auto folder = TemporaryFolder::make("sbx-openapi").value();
  ::setenv("SBX_HOME", (folder.path() / "home").c_str(), 1);
  ASSERT_EQ(sbx({"ls"}).status, 0);
  const OpenApi api;
  std::set<std::pair<std::string, std::string>> documented;
  std::set<std::string> patterns;
  for (const auto& [method, pattern] : api.operations()) {
    documented.emplace(method, pattern);
    patterns.insert(pattern);
    // These take minutes or for ever, end the daemon, or need more than one request to say anything (their turn comes
    // elsewhere).
    if (pattern == "/v1/daemon/stop" || (pattern == "/v1/images" && method == "POST") || pattern.ends_with("/follow"))
      continue;
    const std::vector<std::string> parameters(std::ranges::count(pattern, '{'), "nothing");
    (void)api.ask(method, pattern, parameters);
    // Unknown members are ignored, and a sandbox needs none: a wrong one then, or this would build an image.
    const auto body = nlohmann::json::parse(pattern == "/v1/sandboxes" ? R"({"agent":1})" : R"({"nonsense":[1,null]})");
    if (method != "GET") (void)api.ask(method, pattern, parameters, body);
  }
  ASSERT_GT(documented.size(), 20U);
  for (auto pattern : patterns) {
    for (const char* method : {"GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}) {
      if (documented.contains({method, pattern})) continue;
      auto target = pattern;
      for (auto open = target.find('{'); open != std::string::npos; open = target.find('{'))
        target.replace(open, target.find('}') - open + 1, "nothing");
      EXPECT_EQ(request(method, target).status, 400) << method << " " << target;
    }
  }
  for (const char* target : {"/", "/v1", "/v2/daemon", "/v1/daemon/", "/v1/sandboxes/a/b/c", "/v1/../v1/daemon"})
    EXPECT_EQ(request("GET", target).status, 404) << target;
  // What is no JSON, or too much of it.
  EXPECT_EQ(request("POST", "/v1/sandboxes", "text").status, 400);
  (void)api.ask("POST", "/v1/daemon/stop");
}

}  // namespace
}  // namespace sbx::test
