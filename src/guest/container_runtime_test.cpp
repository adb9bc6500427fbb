#include "guest/container_runtime.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>

namespace sbx::guest {
namespace {

using nlohmann::json;
using Kind = RuntimeCall::Kind;

bool has(const json& list, const std::string& text) {
  return std::ranges::any_of(list, [&](const json& entry) { return entry == text; });
}

TEST(ContainerRuntime, FindsTheFolderOrFileThatACallIsAbout) {
  const auto created =
      parse_runtime_call({"--root", "/run/x", "--log", "/l", "create", "--bundle", "/b", "--pid-file", "/p", "id"});
  EXPECT_EQ(created.kind, Kind::kStart);
  EXPECT_EQ(created.path, "/b");
  EXPECT_EQ(parse_runtime_call({"run", "--bundle=/c", "--keep", "id"}).path, "/c");
  EXPECT_EQ(parse_runtime_call({"run", "-b", "/d", "id"}).path, "/d");
  EXPECT_EQ(parse_runtime_call({"run", "id"}).path, ".");
  const auto exec = parse_runtime_call({"--log", "/l", "exec", "--process", "/tmp/p", "--detach", "id"});
  EXPECT_EQ(exec.kind, Kind::kExec);
  EXPECT_EQ(exec.path, "/tmp/p");
  for (const char* word : {"start", "delete", "kill", "state", "--version"}) {
    EXPECT_EQ(parse_runtime_call({word, "id"}).kind, Kind::kOther) << word;
  }
}

TEST(ContainerRuntime, AContainerGetsTheAuthoritiesAndKeepsWhatItSetItself) {
  const std::string config = R"({"ociVersion":"1.0","process":{"args":["x"],"env":["PATH=/bin","PIP_CERT=/mine"]},)"
                             R"("mounts":[{"destination":"/dev","type":"tmpfs"}]})";
  const auto changed = json::parse(config_with_authorities(config, "/bundle.crt").value());
  EXPECT_EQ(changed["mounts"][0]["destination"], "/dev") << "ours lie in it, so they come after it";
  EXPECT_EQ(changed["mounts"][1]["source"], "/bundle.crt");
  EXPECT_TRUE(has(changed["mounts"][1]["options"], "ro"));
  const auto& environment = changed["process"]["env"];
  EXPECT_TRUE(has(environment, "SSL_CERT_FILE=/dev/sbx/ca-certificates.crt"));
  EXPECT_TRUE(has(environment, "NODE_EXTRA_CA_CERTS=/dev/sbx/extra-ca.pem"));
  EXPECT_TRUE(has(environment, "PIP_CERT=/mine"));
  EXPECT_FALSE(has(environment, "PIP_CERT=/dev/sbx/ca-certificates.crt"));
  EXPECT_EQ(changed["process"]["args"][0], "x");
}

TEST(ContainerRuntime, ACommandInAContainerGetsTheVariables) {
  const auto changed = json::parse(process_with_authorities(R"({"args":["sh"],"cwd":"/"})").value());
  EXPECT_TRUE(has(changed["env"], "CURL_CA_BUNDLE=/dev/sbx/ca-certificates.crt"));
  EXPECT_EQ(changed["cwd"], "/");
}

TEST(ContainerRuntime, WhatIsNoConfigurationIsLeftAlone) {
  EXPECT_FALSE(config_with_authorities("[]", "/b"));
  EXPECT_FALSE(config_with_authorities(R"({"mounts":5})", "/b"));
  EXPECT_FALSE(process_with_authorities("no json"));
}

TEST(ContainerRuntime, IsKnownByItsName) {
  EXPECT_TRUE(is_container_runtime("/run/sbx/bin/crun"));
  EXPECT_TRUE(is_container_runtime("runc"));
  EXPECT_FALSE(is_container_runtime("/init"));
}

}  // namespace
}  // namespace sbx::guest
