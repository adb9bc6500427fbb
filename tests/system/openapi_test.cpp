// The routes of a sandbox that lives, and what its own life makes them say.
#include "openapi.h"

#include <gtest/gtest.h>

#include "instance.h"

namespace sbx::test {
namespace {

using nlohmann::json;

TEST(OpenApiRoutes, OfALiveSandboxAnswerAsDocumented) {
  auto folder = TemporaryFolder::make("sbx-openapi").value();
  ASSERT_EQ(sbx({"ls"}).status, 0);
  const OpenApi api;
  const std::string name = "api-" + std::to_string(::getpid());
  const json wanted = {{"name", name},
                       {"workspaces", {{{"path", folder.path()}, {"readonly", true}}}},
                       {"labels", {{"k", "v"}}},
                       {"env", {"A=b"}}};
  const auto made = api.ask("POST", "/v1/sandboxes", {}, wanted);
  struct Remover {
    std::string name;
    ~Remover() { (void)sbx({"rm", "-f", name}); }
  } const remover{name};
  ASSERT_EQ(made.status, 200) << made.body;
  const std::string id = made.json()["id"];
  EXPECT_EQ(api.ask("POST", "/v1/sandboxes", {}, wanted).status, 409);
  EXPECT_EQ(api.ask("GET", "/v1/sandboxes").status, 200);
  EXPECT_EQ(api.ask("GET", "/v1/sandboxes", {}, nullptr, "?label=k%3Dv").json()["sandboxes"].size(), 1U);
  EXPECT_EQ(api.ask("GET", "/v1/sandboxes", {}, nullptr, "?label=k%3Dother").json()["sandboxes"].size(), 0U);
  for (const auto& reference : {name, id})
    EXPECT_EQ(api.ask("GET", "/v1/sandboxes/{name}", {reference}).json()["id"], id);
  EXPECT_EQ(api.ask("POST", "/v1/sandboxes/{name}/start", {name}).json()["started"], false);
  EXPECT_EQ(api.ask("POST", "/v1/sandboxes/{name}/start", {name}, {{"cold", true}}).status, 409);
  EXPECT_EQ(api.ask("GET", "/v1/sandboxes/{name}/attach", {name}).status, 400);
  const auto ports = api.ask("POST", "/v1/sandboxes/{name}/ports", {name}, {{"publish", {"80"}}}).json();
  EXPECT_EQ(ports["published"][0]["sandbox_port"], 80);
  EXPECT_EQ(api.ask("GET", "/v1/sandboxes/{name}/ports", {name}).json()["ports"][0]["listening"], true);
  EXPECT_EQ(api.ask("POST", "/v1/sandboxes/{name}/ports", {name}, {{"unpublish", {"80"}}}).status, 200);

  const json command = {
      {"argv", {"bash", "-c", "trap 'stty size; exit 3' WINCH; echo begun; while :; do sleep 0.1; done"}},
      {"tty", true}};
  const auto started = api.ask("POST", "/v1/sandboxes/{name}/execs", {name}, command);
  ASSERT_EQ(started.status, 200);
  const std::string exec = started.json()["id"];
  EXPECT_EQ(api.ask("POST", "/v1/sandboxes/{name}/execs", {name}, {{"argv", json::array()}}).status, 400);
  EXPECT_TRUE(eventually(
      [&] { return api.ask("GET", "/v1/execs/{id}/logs", {exec}).body.find("begun") != std::string::npos; }));
  EXPECT_EQ(api.ask("GET", "/v1/sandboxes/{name}/execs", {name}).json()["execs"][0]["running"], true);
  EXPECT_EQ(api.ask("POST", "/v1/execs/{id}/resize", {exec}, {{"rows", 12}, {"cols", 34}}).status, 200);
  EXPECT_EQ(api.ask("GET", "/v1/execs/{id}/wait", {exec}).json()["exit_code"], 3);
  EXPECT_NE(api.ask("GET", "/v1/execs/{id}/logs", {exec}, nullptr, "?follow=1").body.find("12 34"), std::string::npos);
  EXPECT_EQ(api.ask("GET", "/v1/sandboxes/{name}/execs", {name}).json()["execs"][0]["status"]["exit_code"], 3);
  const std::string sleeper =
      api.ask("POST", "/v1/sandboxes/{name}/execs", {name}, {{"argv", {"sleep", "1000"}}}).json()["id"];
  EXPECT_EQ(api.ask("POST", "/v1/execs/{id}/signal", {sleeper}, {{"signal", 9}}).status, 200);
  EXPECT_EQ(api.ask("GET", "/v1/execs/{id}/wait", {sleeper}).json()["signal"], 9);

  const auto images = api.ask("GET", "/v1/images").json()["images"];
  const auto templates = api.ask("GET", "/v1/templates").json()["templates"];
  ASSERT_FALSE(images.empty());
  ASSERT_FALSE(templates.empty());
  const auto view = api.ask("GET", "/v1/sandboxes/{name}", {name}).json();
  EXPECT_EQ(api.ask("DELETE", "/v1/images/{id}", {view["image"]}).status, 409);
  EXPECT_EQ(api.ask("DELETE", "/v1/templates/{id}", {view["template"]}).status, 409);
  EXPECT_EQ(api.ask("POST", "/v1/images").status, 200);
  EXPECT_EQ(api.ask("GET", "/v1/diagnose").status, 200);

  EXPECT_EQ(api.ask("POST", "/v1/sandboxes/{name}/stop", {name}).status, 200);
  EXPECT_EQ(api.ask("GET", "/v1/sandboxes/{name}", {name}).json()["status"], "stopped");
  EXPECT_EQ(api.ask("GET", "/v1/sandboxes/{name}/execs", {name}).status, 200);
  const auto would = api.ask("POST", "/v1/prune", {}, {{"dry_run", true}}).json()["removed"];
  EXPECT_NE(std::find(would.begin(), would.end(), name), would.end());
  EXPECT_EQ(api.ask("DELETE", "/v1/sandboxes/{name}", {name}).status, 200);
  EXPECT_EQ(api.ask("DELETE", "/v1/sandboxes/{name}", {name}).status, 404);
}

}  // namespace
}  // namespace sbx::test
