#include "sandbox/spare_plan.h"

#include <gtest/gtest.h>

namespace sbx::sandbox {
namespace {

using namespace std::chrono_literals;

constexpr std::uint64_t kPlenty = 8ULL << 30U;

TemplateChoice kind(const std::string& id) {
  TemplateChoice choice;
  choice.id = id;
  return choice;
}

class SparePlanTest : public testing::Test {
 protected:
  explicit SparePlanTest(std::size_t most = 1)
      : plan([&] {
          SparePlan::Limits limits;
          limits.most = most;
          return limits;
        }()) {}
  void create(const std::string& id) {
    plan.create_began();
    plan.create_ended(kind(id), now);
  }
  std::string to_make(std::uint64_t available = kPlenty) {
    const auto choice = plan.to_make(now, available);
    return choice ? choice->id : "";
  }
  std::vector<std::string> to_drop(std::uint64_t available = kPlenty) { return plan.to_drop(now, available); }

  SparePlan plan;
  SparePlan::Clock::time_point now{1000h};
};

class TwoSparesTest : public SparePlanTest {
 protected:
  TwoSparesTest() : SparePlanTest(2) {}
};

class NoSparesTest : public SparePlanTest {
 protected:
  NoSparesTest() : SparePlanTest(0) {}
};

TEST_F(SparePlanTest, NothingIsMadeBeforeAnythingWasCreated) {
  EXPECT_TRUE(plan.at_rest());
  EXPECT_EQ(to_make(), "");
}

TEST_F(SparePlanTest, OneIsMadeSomeTimeAfterACreationOfItsKind) {
  create("a");
  EXPECT_FALSE(plan.at_rest());
  EXPECT_EQ(to_make(), "");
  now += 1999ms;
  EXPECT_EQ(to_make(), "");
  now += 1ms;
  EXPECT_EQ(to_make(), "a");
  plan.made(kind("a"));
  EXPECT_EQ(to_make(), "") << "there is one";
  plan.gone(kind("a"));
  EXPECT_EQ(to_make(), "a");
}

TEST_F(SparePlanTest, NoneIsMadeWhileACreationRuns) {
  create("a");
  now += 1h;
  create("a");
  plan.create_began();
  now += 1min;
  EXPECT_EQ(to_make(), "");
  plan.create_ended(std::nullopt, now);
  EXPECT_EQ(to_make(), "") << "nor right after one that failed";
  now += 2s;
  EXPECT_EQ(to_make(), "a");
}

TEST_F(SparePlanTest, ACreationThatFailedAsksForNothing) {
  plan.create_began();
  plan.create_ended(std::nullopt, now);
  EXPECT_TRUE(plan.at_rest());
}

TEST_F(SparePlanTest, OneThatNobodyAsksForGoesAndIsNotMadeAgain) {
  create("a");
  plan.made(kind("a"));
  now += 599s;
  EXPECT_TRUE(to_drop().empty());
  now += 1s;
  EXPECT_EQ(to_drop(), std::vector<std::string>{"a"});
  plan.gone(kind("a"));
  EXPECT_EQ(to_make(), "");
  EXPECT_TRUE(to_drop().empty());
  EXPECT_TRUE(plan.at_rest()) << "the kind is forgotten";
}

TEST_F(SparePlanTest, OneMakesRoomForTheKindThatWasAskedForLast) {
  create("a");
  plan.made(kind("a"));
  now += 10s;
  create("b");
  now += 10s;
  EXPECT_EQ(to_drop(), std::vector<std::string>{"a"});
  plan.gone(kind("a"));
  EXPECT_EQ(to_make(), "b");
  plan.made(kind("b"));
  EXPECT_EQ(to_make(), "") << "never more than the limit";
}

TEST_F(TwoSparesTest, ThereIsOneOfEachKindUpToTheLimit) {
  create("a");
  now += 1s;
  create("b");
  now += 1s;
  create("c");
  now += 2s;
  EXPECT_EQ(to_make(), "c");
  plan.made(kind("c"));
  EXPECT_EQ(to_make(), "b");
  plan.made(kind("b"));
  EXPECT_EQ(to_make(), "");
  EXPECT_TRUE(to_drop().empty());
}

TEST_F(NoSparesTest, NoneIsWantedNoneIsMade) {
  create("a");
  now += 1min;
  EXPECT_EQ(to_make(), "");
  EXPECT_TRUE(plan.at_rest());
}

TEST_F(SparePlanTest, ShortMemoryDropsThemAndTheyComeBackOnlyWhenThereIsPlenty) {
  const SparePlan::Limits limits;
  create("a");
  now += 2s;
  EXPECT_EQ(to_make(limits.make_above - 1), "");
  EXPECT_EQ(to_make(limits.make_above), "a");
  plan.made(kind("a"));
  EXPECT_TRUE(to_drop(limits.keep_above).empty()) << "between the limits it stays";
  EXPECT_EQ(to_drop(limits.keep_above - 1), std::vector<std::string>{"a"});
  plan.gone(kind("a"));
  EXPECT_EQ(to_make(limits.make_above - 1), "");
  EXPECT_EQ(to_make(limits.make_above), "a");
}

TEST_F(SparePlanTest, WhatFailsIsTriedAgainLaterAndLaterAndThenNotForLong) {
  create("a");
  now += 2s;
  const SparePlan::Limits limits;
  std::chrono::milliseconds pause = limits.first_pause;
  for (int failure = 1; failure < limits.failures; ++failure) {
    EXPECT_EQ(to_make(), "a") << failure;
    EXPECT_EQ(plan.failed(kind("a"), now), failure == 1) << "only the first is told";
    create("a");  // asked for all along
    now += pause - 1ms;
    EXPECT_EQ(to_make(), "") << failure;
    now += 1ms;
    pause *= 2;
  }
  EXPECT_EQ(to_make(), "a");
  EXPECT_FALSE(plan.failed(kind("a"), now));
  now += limits.given_up - 1ms;
  create("a");
  EXPECT_EQ(to_make(), "");
  EXPECT_TRUE(to_drop().empty());
  EXPECT_FALSE(plan.at_rest()) << "nor is it forgotten, which would have it tried anew";
}

TEST_F(SparePlanTest, OneThatBecameASandboxForgivesTheFailures) {
  create("a");
  EXPECT_TRUE(plan.failed(kind("a"), now));
  plan.made(kind("a"));
  plan.gone(kind("a"));
  EXPECT_FALSE(plan.failed(kind("a"), now)) << "taken alone is no success";
  plan.adopted(kind("a"));
  EXPECT_TRUE(plan.failed(kind("a"), now));
}

TEST_F(SparePlanTest, AForgottenTemplateIsLeftAloneUntilItIsAskedForAgain) {
  create("a");
  now += 2s;
  EXPECT_TRUE(plan.knows("a"));
  plan.forget("a");
  EXPECT_FALSE(plan.knows("a"));
  EXPECT_EQ(to_make(), "");
  EXPECT_FALSE(plan.failed(kind("a"), now));
  plan.gone(kind("a"));
  EXPECT_TRUE(plan.at_rest()) << "what is told of it afterwards does not bring it back";
  create("a");
  now += 2s;
  EXPECT_EQ(to_make(), "a");
}

TEST(AvailableMemory, IsWhatTheHostSays) {
  const auto available = available_memory();
  ASSERT_TRUE(available);
  EXPECT_GT(*available, 1ULL << 20U);
}

}  // namespace
}  // namespace sbx::sandbox
