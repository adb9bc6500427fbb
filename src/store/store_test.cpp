#include <gtest/gtest.h>

#include <set>

#include "base/file.h"
#include "store/sandbox_store.h"
#include "store/ssh_agent_store.h"

namespace sbx::store {
namespace {

Sandbox example(const std::string& id, const std::string& name) {
  Sandbox s;
  s.id = id;
  s.name = name;
  s.agent = "shell";
  s.workspaces = {{"/work", false, false}, {"/notes.txt", true, true}};
  s.env = {"A=1", "B=two words"};
  s.labels = {{"role", "db"}};
  s.protection = {{"Makefile"}, {".env", "a b"}, true};
  s.created_at = 5;
  return s;
}

TEST(Store, KeepsEveryFieldAcrossAReopen) {
  auto folder = TemporaryFolder::make("store");
  ASSERT_TRUE(folder);
  const auto path = folder->path() / "store.db";
  {
    auto database = Database::open(path);
    ASSERT_TRUE(database) << database.error().describe();
    SandboxStore store(*database);
    auto done = store.insert(example("id-1", "one"));
    ASSERT_TRUE(done) << done.error().describe();
    auto row = example("id-1", "one");
    row.state = State::kRunning;
    row.keeper_pid = 77;
    ASSERT_TRUE(store.update(row));
  }
  auto database = Database::open(path);
  ASSERT_TRUE(database);
  SandboxStore store(*database);
  auto found = store.find("one");
  ASSERT_TRUE(found && *found);
  const Sandbox& s = **found;
  EXPECT_EQ(s.state, State::kRunning);
  EXPECT_EQ(s.keeper_pid, 77);
  EXPECT_EQ(s.workspaces, example("", "").workspaces);
  EXPECT_EQ(s.env, example("", "").env);
  EXPECT_EQ(s.labels, example("", "").labels);
  EXPECT_EQ(s.protection, example("", "").protection);
  EXPECT_TRUE(*store.find("id-1"));
  EXPECT_FALSE(*store.find("two"));
}

TEST(Store, AForwardedSshAgentIsKnownUntilItsSandboxIsGone) {
  const auto folder = TemporaryFolder::make("store");
  auto database = Database::open(folder->path() / "store.db");
  ASSERT_TRUE(database);
  SandboxStore store(*database);
  SshAgentStore agents(*database);
  EXPECT_FALSE(agents.set("id-1", "/a")) << "of no sandbox";
  ASSERT_TRUE(store.insert(example("id-1", "one")));
  EXPECT_FALSE(*agents.of("id-1"));
  for (const std::string socket : {"/a", "/b"}) {
    ASSERT_TRUE(agents.set("id-1", socket));
    EXPECT_EQ(**agents.of("id-1"), socket);
  }
  ASSERT_TRUE(store.remove("id-1"));
  EXPECT_FALSE(*agents.of("id-1"));
}

TEST(Store, RefusesASecondSandboxOfTheSameName) {
  auto folder = TemporaryFolder::make("store");
  auto database = Database::open(folder->path() / "store.db");
  ASSERT_TRUE(database);
  SandboxStore store(*database);
  ASSERT_TRUE(store.insert(example("id-1", "one")));
  auto second = store.insert(example("id-2", "one"));
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().code, ErrorCode::kConflict);
  ASSERT_TRUE(store.remove("id-1"));
  EXPECT_TRUE(store.insert(example("id-2", "one")));
}

TEST(Store, GivesNoTwoSandboxesTheSameJailSlotAndReusesOneOnlyAfterItsRemoval) {
  auto folder = TemporaryFolder::make("store");
  const auto path = folder->path() / "store.db";
  constexpr unsigned kCount = 3;
  std::set<unsigned> slots;
  {
    auto database = Database::open(path);
    ASSERT_TRUE(database);
    SandboxStore store(*database);
    for (const std::string id : {"a", "b", "c", "d"}) ASSERT_TRUE(store.insert(example(id, id)));
    for (const std::string id : {"a", "b", "c"}) slots.insert(store.jail_slot(id, kCount).value());
    EXPECT_EQ(slots, (std::set<unsigned>{0, 1, 2}));
    const auto full = store.jail_slot("d", kCount);
    ASSERT_FALSE(full);
    EXPECT_EQ(full.error().code, ErrorCode::kUnavailable);
    EXPECT_FALSE(store.jail_slot("nobody", 100)) << "only a sandbox has one";
  }
  auto database = Database::open(path);
  ASSERT_TRUE(database);
  SandboxStore store(*database);
  const auto kept = store.jail_slot("b", kCount);
  EXPECT_EQ(*store.jail_slot("b", kCount), *kept) << "it stays the same";
  ASSERT_TRUE(store.update(example("b", "renamed")));
  EXPECT_EQ(*store.jail_slot("b", kCount), *kept);
  const auto freed = store.jail_slot("a", kCount);
  ASSERT_TRUE(store.remove("a"));
  EXPECT_EQ(*store.jail_slot("d", kCount), *freed);
}

TEST(Store, AJailSlotThatIsReservedIsNobodyElses) {
  const auto folder = TemporaryFolder::make("sbx-store").value();
  auto database = Database::open(folder.path() / "store.db");
  ASSERT_TRUE(database);
  SandboxStore store(*database);
  for (const std::string id : {"a", "b"}) ASSERT_TRUE(store.insert(example(id, id)));
  const auto reserved = store.free_jail_slot(2, {});
  ASSERT_TRUE(reserved);
  const std::set<unsigned> taken = {*reserved};
  EXPECT_EQ(*store.jail_slot("a", 2, taken), 1 - *reserved);
  EXPECT_EQ(store.free_jail_slot(2, taken).error().code, ErrorCode::kUnavailable);
  ASSERT_TRUE(store.give_jail_slot("b", *reserved));
  EXPECT_EQ(*store.jail_slot("b", 2), *reserved);
  EXPECT_FALSE(store.give_jail_slot("a", *reserved)) << "it is b's";
}

TEST(Store, MigratesToTheNewestVersionAndRefusesANewerOne) {
  auto folder = TemporaryFolder::make("store");
  const auto path = folder->path() / "store.db";
  {
    auto database = Database::open(path);
    ASSERT_TRUE(database);
    EXPECT_EQ(*database->version(), Database::newest_version());
    ASSERT_TRUE(database->run("PRAGMA user_version=9999"));
  }
  auto database = Database::open(path);
  ASSERT_FALSE(database);
  EXPECT_EQ(database.error().code, ErrorCode::kConflict);
}

}  // namespace
}  // namespace sbx::store
