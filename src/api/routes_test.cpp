#include "api/routes.h"

#include <gtest/gtest.h>

#include "api/handlers.h"

namespace sbx::api {
namespace {

Result<const Route*> route(const std::string& method, const std::string& target, Request& request) {
  request.method = method;
  parse_target(target, request);
  return find_route(request);
}

TEST(Routes, MatchByMethodAndPath) {
  Request request;
  auto found = route("DELETE", "/v1/sandboxes/my%2Dbox?force=1&x", request);
  ASSERT_TRUE(found);
  EXPECT_EQ((*found)->pattern, "/v1/sandboxes/{name}");
  EXPECT_EQ(request.params["name"], "my-box");
  EXPECT_EQ(request.query["force"], "1");
  EXPECT_TRUE(request.query.contains("x"));
}

TEST(Routes, TellAnUnknownPathFromAWrongMethod) {
  Request request;
  EXPECT_EQ(route("GET", "/v1/nothing", request).error().code, ErrorCode::kNotFound);
  EXPECT_EQ(route("PUT", "/v1/sandboxes", request).error().code, ErrorCode::kInvalid);
  EXPECT_EQ(route("GET", "/v1/sandboxes//execs", request).error().code, ErrorCode::kNotFound);
}

TEST(ExecHead, KeepsEmptyArgumentsAndRefusesAnEmptyProgram) {
  auto head = exec_head({{"argv", {"printf", "", "a b"}}});
  ASSERT_TRUE(head);
  EXPECT_EQ((*head)["argv"], (nlohmann::json{"printf", "", "a b"}));
  EXPECT_EQ((*head)["stdin"], true);
  EXPECT_FALSE(exec_head({{"argv", {""}}}));
  EXPECT_FALSE(exec_head({{"argv", nlohmann::json::array()}}));
  EXPECT_FALSE(exec_head({{"argv", {1, 2}}}));
  EXPECT_FALSE(exec_head(nullptr));
  const auto unknown = exec_head({{"argv", {"true"}}, {"detach", true}});
  ASSERT_FALSE(unknown);
  EXPECT_NE(unknown.error().describe().find("\"detach\" is not known here"), std::string::npos);
}

}  // namespace
}  // namespace sbx::api
