// The servers that the gateway's tests share, and the fixture that starts gateways in front of them.
#pragma once

#include <gtest/gtest.h>

#include "gateway/test_gateway.h"
#include "gateway/test_servers.h"

namespace sbx::gateway::test {

// The main() of a test program that runs in a network of its own: names and addresses as the servers below need them.
int main_in_test_network(int argc, char** argv);

struct World {
  World();
  PublicAuthority authority;
  TemporaryFolder folder = TemporaryFolder::make("sbx-world").value();
  std::string public_root;  // a file
  std::unique_ptr<Nginx> nginx;
  std::unique_ptr<PythonServer> plain;
  std::unique_ptr<PythonServer> secure;
};

class GatewayTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() { world_ = new World; }
  static void TearDownTestSuite() {
    delete world_;
    world_ = nullptr;
  }
  static std::unique_ptr<TestGateway> start(std::vector<nlohmann::json> rules,
                                            nlohmann::json more = nlohmann::json::object()) {
    return std::make_unique<TestGateway>(std::move(rules), world_->authority.root(), std::move(more));
  }
  // curl to `url`, whose connection is a CONNECT to NAME:PORT as the URL says.
  static Result<std::string> get(TestGateway& gateway, const std::string& url, std::vector<std::string> more = {});
  static std::vector<std::string> trusting(const std::string& file, std::vector<std::string> more = {});
  // Opens a CONNECT, sends `words` and returns the status and what comes back until the end (or the reset).
  struct Talk {
    int status = 0;
    std::string answer;
    bool reset = false;
  };
  static Talk talk(TestGateway& gateway, const std::string& authority, const std::string& words, bool finish = true);

  static World* world_;
};

}  // namespace sbx::gateway::test
