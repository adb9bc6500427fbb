#include "policy/policy_log.h"

#include <gtest/gtest.h>

#include "base/file.h"

namespace sbx::policy {
namespace {

using nlohmann::json;

json decision(const std::string& host, bool allowed, const std::string& id = "") {
  json entry = {{"at", "2020-01-01T00:00:00Z"},
                {"kind", "transparent"},
                {"host", host},
                {"port", 443},
                {"protocol", "tcp"},
                {"allowed", allowed},
                {"rule", "a rule"},
                {"origin", "local"},
                {"reason", "because"}};
  if (!id.empty()) entry["id"] = id;
  return entry;
}

class PolicyLogTest : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = std::make_unique<TemporaryFolder>(*TemporaryFolder::make("log"));
    open();
  }
  void open() {
    log_.reset();
    database_ = std::make_unique<store::Database>(*store::Database::open(folder_->path() / "store.db"));
    log_ = std::make_unique<PolicyLog>(*database_);
  }
  std::unique_ptr<TemporaryFolder> folder_;
  std::unique_ptr<store::Database> database_;
  std::unique_ptr<PolicyLog> log_;
};

TEST_F(PolicyLogTest, AggregatesByHostAndVerdictAndOutlivesTheDaemon) {
  for (int i = 0; i < 3; ++i) log_->record("id", "box", decision("a.com", true));
  log_->record("id", "box", decision("b.com", false));
  log_->record("other", "box2", decision("a.com", true));
  open();
  const auto all = log_->summary({});
  ASSERT_TRUE(all) << all.error().describe();
  ASSERT_EQ((*all)["allowed_hosts"].size(), 2U);
  EXPECT_EQ((*all)["allowed_hosts"][0]["vm_name"], "box2") << "latest first";
  EXPECT_EQ((*all)["allowed_hosts"][1]["count_since"], 3);
  EXPECT_EQ((*all)["blocked_hosts"][0]["host"], "b.com");
  EXPECT_EQ((*all)["blocked_hosts"][0]["rule"], "a rule");
  LogFilter filter;
  filter.sandbox_id = "other";
  EXPECT_TRUE((*log_->summary(filter))["blocked_hosts"].empty());
  filter = {};
  filter.limit = 1;
  EXPECT_EQ((*log_->summary(filter))["allowed_hosts"].size(), 1U);
  EXPECT_EQ(log_->latest(filter)->front()["sandbox"], "box2");
  filter.type = "filesystem";
  EXPECT_TRUE((*log_->summary(filter))["allowed_hosts"].empty());
  EXPECT_EQ(log_->id_of_removed("box2")->value_or(""), "other");
}

TEST_F(PolicyLogTest, TellsFollowersAtOnce) {
  std::vector<json> seen;
  auto subscription = log_->follow([&](const json& entry) { seen.push_back(entry); });
  log_->record("id", "box", decision("a.com", true, "5-1"));
  ASSERT_EQ(seen.size(), 1U);
  EXPECT_EQ(seen[0]["sandbox"], "box");
  EXPECT_FALSE(seen[0].contains("id"));
  subscription.reset();
  log_->record("id", "box", decision("a.com", true, "5-2"));
  EXPECT_EQ(seen.size(), 1U);
}

TEST_F(PolicyLogTest, IgnoresWhatAGatewayTellsAgain) {
  for (const char* id : {"5-1", "5-2", "5-1", "5-2"}) log_->record("id", "box", decision("a.com", true, id));
  open();
  for (const char* id : {"5-1", "5-2", "5-3"}) log_->record("id", "box", decision("a.com", true, id));
  EXPECT_EQ(log_->latest({})->size(), 3U);
  log_->record("id", "box", decision("a.com", true, "6-1"));
  log_->record("other", "box2", decision("a.com", true, "1-1"));
  EXPECT_EQ(log_->latest({})->size(), 5U);
}

TEST_F(PolicyLogTest, AFloodOfOneVerdictLeavesTheOther) {
  log_->record("id", "box", decision("evil.com", true));
  for (int i = 0; i < 5000; ++i) log_->record("id", "box", decision("h" + std::to_string(i) + ".com", false));
  const auto entries = log_->latest({});
  ASSERT_EQ(entries->size(), 2001U);
  EXPECT_EQ(entries->front()["host"], "evil.com");
  EXPECT_EQ(entries->back()["host"], "h4999.com");
}

TEST_F(PolicyLogTest, ASignatureIsOnTheDiskOrTheCallFailsAndItIsKept) {
  json signature = decision("SHA256:key", true, "5-1");
  signature["kind"] = "ssh-agent";
  ASSERT_TRUE(database_->run("ALTER TABLE policy_log RENAME TO away"));
  EXPECT_FALSE(log_->record("id", "box", signature));
  EXPECT_FALSE(log_->record("id", "box", signature)) << "told again, and still not written";
  ASSERT_TRUE(database_->run("ALTER TABLE away RENAME TO policy_log"));
  EXPECT_TRUE(log_->record("id", "box", signature));
  EXPECT_EQ(PolicyLog(*database_).latest({})->size(), 1U) << "another reader sees it, once";
}

TEST_F(PolicyLogTest, AGatewayWhoseClockWasSetBackIsHeard) {
  ASSERT_TRUE(log_->record("id", "box", decision("a.com", true, "9-4")));
  ASSERT_TRUE(log_->record("id", "box", decision("b.com", true, "3-1")));
  EXPECT_EQ(log_->latest({})->size(), 2U);
}

TEST_F(PolicyLogTest, AFloodDoesNotMakeSignaturesForgotten) {
  json signature = decision("SHA256:key", true);
  signature["kind"] = "ssh-agent";
  log_->record("id", "box", signature);
  for (int i = 0; i < 3000; ++i) log_->record("id", "box", decision("h" + std::to_string(i) + ".com", true));
  const auto entries = log_->latest({});
  ASSERT_EQ(entries->size(), 2001U);
  EXPECT_EQ(entries->front()["host"], "SHA256:key");
}

TEST_F(PolicyLogTest, HostileEntriesAreBoundedAndPrintable) {
  json entry = decision("a\r\n{\"allowed\":true}\x1b[2J\xff", false);
  entry["port"] = 99999999;
  entry["kind"] = "root shell\n";
  entry["protocol"] = "quic";
  entry["path"] = "/x?token=secret#y";
  entry["method"] = std::string(5000, 'M');
  entry["reason"] = std::string(1U << 20U, 'r');
  entry["origin"] = "org";
  entry["at"] = "1970-01-01T00:00:00Z";
  entry["sandbox"] = "somebody else";
  const json clean = sanitised_entry(entry);
  EXPECT_EQ(clean["host"], "a\\x0d\\x0a{\"allowed\":true}\\x1b[2J\\xff");
  EXPECT_EQ(clean["port"], 0);
  EXPECT_EQ(clean["kind"], "network");
  entry["kind"] = "ssh-agent";
  EXPECT_EQ(sanitised_entry(entry)["kind"], "ssh-agent");
  EXPECT_EQ(clean["protocol"], "tcp");
  EXPECT_EQ(clean["path"], "/x");
  EXPECT_EQ(clean["origin"], "");
  EXPECT_FALSE(clean.contains("sandbox"));
  EXPECT_FALSE(clean["at"].get<std::string>().starts_with("1970"));
  EXPECT_LT(clean.dump().size(), 1000U);
  for (const json& none : {json(), json(7), json::array(), json::object(), json{{"host", "a"}}, json{{"allowed", true}},
                           json{{"allowed", 1}, {"host", "a"}}, json{{"allowed", true}, {"host", 5}}})
    EXPECT_TRUE(sanitised_entry(none).is_null()) << none;
  log_->record("id", "box", entry);
  EXPECT_EQ(log_->latest({})->front()["sandbox"], "box");
}

}  // namespace
}  // namespace sbx::policy
