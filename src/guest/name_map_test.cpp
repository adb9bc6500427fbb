#include "guest/name_map.h"

#include <gtest/gtest.h>

#include <set>

namespace sbx::guest {
namespace {

TEST(NameMap, GivesEachNameOneAddressAndKeepsIt) {
  NameMap names;
  const auto first = names.address_for("example.com").value();
  const auto second = names.address_for("example.org").value();
  EXPECT_NE(first, second);
  EXPECT_EQ(names.address_for("example.com"), first);
  EXPECT_EQ(names.name_of(first), "example.com");
  EXPECT_EQ(names.name_of(second), "example.org");
  EXPECT_EQ(names.known_address("example.net"), std::nullopt);
  EXPECT_TRUE(NameMap::covers(first));
}

TEST(NameMap, KnowsTheGatewaysOwnNamesFromTheStart) {
  NameMap names;
  EXPECT_TRUE(names.known_address("gateway.docker.internal"));
  EXPECT_TRUE(names.known_address("host.docker.internal"));
  EXPECT_EQ(names.name_of(NameMap::kOwnAddress), std::nullopt);
  EXPECT_EQ(names.name_of(NameMap::kOwnAddress - 1), std::nullopt);
}

TEST(NameMap, RefusesWhenAllAddressesAreGoneRatherThanReuseOne) {
  NameMap names;
  std::set<std::uint32_t> given;
  std::size_t count = 0;
  for (; count < NameMap::kSize; ++count) {
    const auto address = names.address_for("n" + std::to_string(count));
    if (!address) break;
    ASSERT_TRUE(NameMap::covers(*address));
    given.insert(*address);
  }
  EXPECT_EQ(given.size(), count);
  EXPECT_EQ(count, NameMap::kSize - 5);  // network, broadcast, the resolver's and the two names of the gateway
  EXPECT_EQ(names.name_of(*names.known_address("n0")), "n0");
  EXPECT_EQ(names.address_for("one more"), std::nullopt);
}

}  // namespace
}  // namespace sbx::guest
