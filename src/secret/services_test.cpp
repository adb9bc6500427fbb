#include "secret/services.h"

#include <gtest/gtest.h>

#include <set>
#include <string>

#include "secret/request.h"

namespace sbx::secret {
namespace {

TEST(Services, AreWellFormedAndTellTheirDomainsApart) {
  std::set<std::string_view> names, variables, domains;
  for (const auto& service : services()) {
    EXPECT_TRUE(names.insert(service.name).second) << service.name;
    EXPECT_FALSE(service.environment.empty()) << service.name;
    for (const auto& variable : service.environment) EXPECT_TRUE(variables.insert(variable).second) << variable;
    for (const auto& injection : service.injections) {
      // Two credentials for one request would leave it to chance which is sent.
      for (const auto& domain : injection.domains) {
        EXPECT_TRUE(domains.insert(domain).second) << domain;
        EXPECT_TRUE(check_target(domain)) << domain;
        EXPECT_EQ(domain.find('*'), std::string_view::npos) << domain;
      }
      EXPECT_NE(injection.basic_user.empty(), injection.format.empty()) << service.name;
      if (!injection.format.empty()) {
        EXPECT_NE(injection.format.find("%s"), std::string_view::npos) << service.name;
      }
      for (const char c : injection.header) EXPECT_TRUE(c == '-' || (c >= 'a' && c <= 'z')) << injection.header;
    }
  }
  EXPECT_EQ(names.size(), 11U);
  EXPECT_EQ(find_service("github")->environment[0], "GH_TOKEN");
  EXPECT_EQ(find_service("nobody"), nullptr);
}

TEST(Services, HaveOAuthFlowsOfKnownServices) {
  for (const auto& flow : oauth_flows()) {
    EXPECT_NE(find_service(flow.service), nullptr);
    EXPECT_EQ(find_oauth_flow(flow.service), &flow) << "one flow a service";
    for (const auto& endpoint : flow.endpoints) EXPECT_TRUE(endpoint.path.starts_with('/'));
    EXPECT_NE(flow.access_sentinel, flow.refresh_sentinel);
  }
}

}  // namespace
}  // namespace sbx::secret
