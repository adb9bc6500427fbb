#include "policy/policy_store.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "base/file.h"
#include "policy/rule_set.h"
#include "store/sandbox_store.h"

namespace sbx::policy {
namespace {

class PolicyStoreTest : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = std::make_unique<TemporaryFolder>(*TemporaryFolder::make("policy"));
    open();
    for (const char* name : {"one", "two"}) {
      store::Sandbox sandbox;
      sandbox.id = std::string("id-") + name;
      sandbox.name = name;
      sandbox.agent = "shell";
      ASSERT_TRUE(store::SandboxStore(*database_).insert(sandbox));
    }
  }
  void open() {
    store_.reset();
    database_ = std::make_unique<store::Database>(*store::Database::open(folder_->path() / "store.db"));
    store_ = std::make_unique<PolicyStore>(*database_);
  }
  Result<StoredRule> add(const std::string& decision, std::vector<std::string> resources, Scope scope = {}) {
    StoredRule rule;
    rule.decision = decision;
    rule.resources = std::move(resources);
    rule.scope = std::move(scope);
    return store_->add(std::move(rule));
  }
  bool allowed(const std::string& sandbox_id, const std::string& host, std::uint16_t port = 443) {
    const auto document = store_->document(sandbox_id);
    EXPECT_TRUE(document);
    const auto set = RuleSet::from_json(*document);
    EXPECT_TRUE(set) << set.error().describe();
    Target target;
    target.host = host;
    target.port = port;
    return set->decide(target).allowed;
  }

  std::unique_ptr<TemporaryFolder> folder_;
  std::unique_ptr<store::Database> database_;
  std::unique_ptr<PolicyStore> store_;
};

TEST_F(PolicyStoreTest, InitialisesOnceAndSaysHowToChange) {
  EXPECT_FALSE(store_->preset()->has_value());
  EXPECT_FALSE(store_->initialise("open"));
  ASSERT_TRUE(store_->initialise("allow-all"));
  EXPECT_TRUE(allowed("id-one", "example.com"));
  const auto again = store_->initialise("balanced");
  ASSERT_FALSE(again);
  EXPECT_EQ(again.error().code, ErrorCode::kConflict);
  EXPECT_NE(again.error().message.find("policy reset"), std::string::npos);
  EXPECT_FALSE(*store_->ensure_initialised());
  ASSERT_TRUE(store_->reset());
  EXPECT_FALSE(allowed("id-one", "example.com"));
  EXPECT_TRUE(*store_->ensure_initialised());
  EXPECT_EQ(store_->preset()->value_or(""), "balanced");
  EXPECT_TRUE(allowed("id-one", "files.pythonhosted.org"));
  EXPECT_FALSE(allowed("id-one", "example.com"));
}

TEST_F(PolicyStoreTest, KeepsEveryFieldAcrossAReopen) {
  StoredRule rule;
  rule.decision = "allow";
  rule.resources = {"API.Example.com:443", "api.example.com:443", "b.com"};
  rule.methods = {"get", "POST"};
  rule.paths = {"/x/**"};
  rule.scope.sandbox_id = "id-one";
  rule.created_via = "provisioned";
  const auto added = store_->add(rule);
  ASSERT_TRUE(added) << added.error().describe();
  open();
  const auto rules = store_->rules();
  ASSERT_EQ(rules->size(), 1U);
  const StoredRule& kept = rules->front();
  EXPECT_EQ(kept.id, added->id);
  EXPECT_EQ(kept.name, "allow api.example.com:443 (+1)");
  EXPECT_EQ(kept.resources, (std::vector<std::string>{"api.example.com:443", "b.com"}));
  EXPECT_EQ(kept.methods, (std::vector<std::string>{"GET", "POST"}));
  EXPECT_EQ(kept.paths, rule.paths);
  EXPECT_EQ(kept.protocols, std::vector<std::string>{"tcp"});
  EXPECT_EQ(kept.scope, rule.scope);
  EXPECT_EQ(kept.created_via, "provisioned");
}

TEST_F(PolicyStoreTest, StoresNothingThatIsWrong) {
  for (const char* resource :
       {"*", "https://a.com", "localhost", "host.docker.internal", "127.0.0.1", "127.0.0.0/8", "[::1]", ""}) {
    const auto added = add("allow", {"fine.com", resource});
    ASSERT_FALSE(added) << resource;
    EXPECT_EQ(added.error().code, ErrorCode::kInvalid) << resource;
  }
  EXPECT_FALSE(add("allow", {}));
  EXPECT_FALSE(add("perhaps", {"a.com"}));
  EXPECT_FALSE(add("allow", {"a.com"}, {"id-nobody", ""})) << "a sandbox that is not there";
  EXPECT_FALSE(add("allow", {"a.com"}, {"", "nobody"}));
  StoredRule path_only;
  path_only.decision = "allow";
  path_only.resources = {"a.com"};
  path_only.paths = {"/x"};
  EXPECT_FALSE(store_->add(path_only));
  path_only.methods = {"ANY"};
  EXPECT_TRUE(store_->add(path_only));
  EXPECT_EQ(store_->rules()->size(), 1U);
  EXPECT_TRUE(add("deny", {"localhost"})) << "a deny is wide on purpose";
}

TEST_F(PolicyStoreTest, ScopesAddUp) {
  ASSERT_TRUE(add("allow", {"global.com"}));
  ASSERT_TRUE(add("allow", {"one.com"}, {"id-one", ""}));
  ASSERT_TRUE(store_->add_profile("web"));
  ASSERT_TRUE(add("allow", {"web.com"}, {"", "web"}));
  ASSERT_TRUE(store_->attach_profile("web", "id-two"));
  ASSERT_TRUE(store_->attach_profile("web", "id-two")) << "twice is once";
  EXPECT_TRUE(allowed("id-one", "global.com"));
  EXPECT_TRUE(allowed("id-one", "one.com"));
  EXPECT_FALSE(allowed("id-one", "web.com"));
  EXPECT_TRUE(allowed("id-two", "global.com"));
  EXPECT_FALSE(allowed("id-two", "one.com"));
  EXPECT_TRUE(allowed("id-two", "web.com"));
  EXPECT_FALSE(allowed("", "one.com"));
  ASSERT_EQ(store_->profiles()->size(), 1U);
  EXPECT_EQ(store_->profiles()->front().sandbox_ids, std::vector<std::string>{"id-two"});
  EXPECT_EQ(store_->profiles()->front().rules, 1U);
  ASSERT_TRUE(store_->detach_profile("web", "id-two"));
  EXPECT_FALSE(allowed("id-two", "web.com"));
  EXPECT_FALSE(store_->detach_profile("web", "id-two"));
  ASSERT_TRUE(store_->remove_profile("web"));
  EXPECT_EQ(store_->rules()->size(), 2U) << "a profile's rules go with it";
}

TEST_F(PolicyStoreTest, ASandboxTakesItsRulesWithIt) {
  ASSERT_TRUE(store_->add_profile("web"));
  ASSERT_TRUE(store_->attach_profile("web", "id-one"));
  ASSERT_TRUE(add("allow", {"one.com"}, {"id-one", ""}));
  ASSERT_TRUE(add("allow", {"global.com"}));
  ASSERT_TRUE(store::SandboxStore(*database_).remove("id-one"));
  ASSERT_EQ(store_->rules()->size(), 1U);
  EXPECT_EQ(store_->rules()->front().resources.front(), "global.com");
  EXPECT_TRUE(store_->profiles()->front().sandbox_ids.empty());
}

TEST_F(PolicyStoreTest, RemovesByIdAndByResource) {
  const auto first = add("allow", {"a.com", "b.com"});
  const auto second = add("deny", {"a.com"});
  ASSERT_TRUE(add("allow", {"a.com"}, {"id-one", ""}));
  Selector selector;
  EXPECT_EQ(store_->remove(selector).error().code, ErrorCode::kInvalid);
  selector.resource = "A.com.";
  const auto removed = store_->remove(selector);
  ASSERT_TRUE(removed) << removed.error().describe();
  EXPECT_EQ(removed->size(), 2U);
  ASSERT_EQ(store_->rules()->size(), 2U);
  EXPECT_EQ(store_->rules()->at(0).resources, std::vector<std::string>{"b.com"});
  EXPECT_EQ(store_->rules()->at(1).scope.sandbox_id, "id-one") << "other scopes are left alone";
  EXPECT_EQ(store_->remove(selector).error().code, ErrorCode::kNotFound);
  Selector by_id;
  by_id.id = first->id;
  ASSERT_TRUE(store_->remove(by_id));
  EXPECT_EQ(store_->remove(by_id).error().code, ErrorCode::kNotFound);
  selector.scope.sandbox_id = "id-two";
  EXPECT_NE(store_->remove(selector).error().message.find("no scoped policy found"), std::string::npos);
}

TEST_F(PolicyStoreTest, AKitsRulesGoWithTheKitOnly) {
  StoredRule rule;
  rule.decision = "allow";
  rule.resources = {"a.com"};
  rule.origin = "kit";
  const auto added = store_->add(rule);
  ASSERT_TRUE(added);
  Selector selector;
  selector.id = added->id;
  EXPECT_EQ(store_->remove(selector).error().code, ErrorCode::kDenied);
}

TEST_F(PolicyStoreTest, TellsOfEveryChange) {
  std::vector<std::string> told;
  Subscription subscription = store_->on_change([&](const std::string& id) { told.push_back(id); });
  ASSERT_TRUE(store_->initialise("deny-all"));
  const auto rule = add("allow", {"a.com"}, {"id-one", ""});
  ASSERT_FALSE(add("allow", {"*"}));
  ASSERT_TRUE(store_->add_profile("web"));
  ASSERT_TRUE(store_->attach_profile("web", "id-two"));
  ASSERT_TRUE(add("deny", {"b.com"}, {"", "web"}));
  Selector selector;
  selector.id = rule->id;
  ASSERT_TRUE(store_->remove(selector));
  ASSERT_TRUE(store_->remove_profile("web"));
  EXPECT_EQ(told, (std::vector<std::string>{"", "id-one", "id-two", "", "id-one", ""}));
  subscription.reset();
  ASSERT_TRUE(store_->reset());
  EXPECT_EQ(told.size(), 6U);
}

}  // namespace
}  // namespace sbx::policy
