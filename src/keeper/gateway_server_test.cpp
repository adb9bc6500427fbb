#include "keeper/gateway_server.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace sbx::keeper {
namespace {

bool has(const std::vector<std::string>& argv, const std::string& word) {
  return std::ranges::find(argv, word) != argv.end();
}

TEST(GatewayServer, SeesTheNetworkAndNoFileOfTheUsers) {
  LaunchSpec spec;
  spec.runtime_folder = "/run/sbx/abcd1234";
  spec.workspaces.push_back({0, "/home/user/project", false, false});
  const auto argv = gateway_command(spec, "/opt/sbx-gateway", 5, 6).argv();
  EXPECT_FALSE(has(argv, "--unshare-net"));
  EXPECT_TRUE(has(argv, "--unshare-pid"));
  EXPECT_FALSE(has(argv, "--bind")) << "everything is read-only";
  EXPECT_FALSE(has(argv, "--proc"));
  EXPECT_FALSE(has(argv, "/home/user/project"));
  EXPECT_FALSE(has(argv, "/run/sbx/abcd1234"));
}

}  // namespace
}  // namespace sbx::keeper
