#include <gtest/gtest.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <set>

#include "api/routes.h"

namespace sbx::api {
namespace {

TEST(OpenApi, ListsExactlyTheRoutesOfTheDaemon) {
  std::set<std::string> documented;
  const YAML::Node document = YAML::LoadFile(SBX_OPENAPI);
  for (const auto& path : document["paths"]) {
    for (const auto& operation : path.second) {
      auto method = operation.first.as<std::string>();
      if (method == "parameters") continue;
      std::ranges::transform(method, method.begin(),
                             [](unsigned char c) { return static_cast<char>(std::toupper(c)); });
      documented.insert(method + " " + path.first.as<std::string>());
      EXPECT_TRUE(operation.second["summary"]) << path.first;
      EXPECT_TRUE(operation.second["responses"]) << path.first;
    }
  }
  std::set<std::string> served;
  for (const auto& route : route_table()) served.insert(std::string(route.method) + " " + std::string(route.pattern));
  EXPECT_EQ(documented, served);
}

}  // namespace
}  // namespace sbx::api
