#include "policy/presets.h"

#include <gtest/gtest.h>

#include <set>

#include "policy/pattern.h"

namespace sbx::policy {
namespace {

TEST(Presets, BalancedIsMadeOfValidPatternsInTheirOneSpellingWithPorts) {
  const auto rules = preset_rules("balanced");
  ASSERT_TRUE(rules) << rules.error().describe();
  std::set<std::string> seen;
  for (const auto& rule : *rules) {
    EXPECT_TRUE(rule.name.starts_with("default-")) << rule.name;
    EXPECT_FALSE(rule.resources.empty()) << rule.name;
    for (const auto& resource : rule.resources) {
      const auto pattern = Pattern::parse(resource);
      ASSERT_TRUE(pattern) << pattern.error().describe();
      EXPECT_EQ(pattern->text(), resource);
      EXPECT_TRUE(pattern->port()) << resource << " is open on every port";
      EXPECT_EQ(pattern->kind(), Pattern::Kind::kName) << resource;
      EXPECT_TRUE(seen.insert(resource).second) << resource << " is listed twice";
    }
  }
  EXPECT_EQ(rules->size(), 6U);
}

TEST(Presets, TheOthersAreEverythingAndNothing) {
  ASSERT_EQ(preset_rules("allow-all")->size(), 1U);
  EXPECT_EQ(preset_rules("allow-all")->front().resources, std::vector<std::string>{"**"});
  EXPECT_TRUE(preset_rules("deny-all")->empty());
  EXPECT_FALSE(preset_rules("open"));
}

}  // namespace
}  // namespace sbx::policy
