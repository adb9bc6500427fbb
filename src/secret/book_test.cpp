#include "secret/book.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/file.h"

namespace sbx::secret {
namespace {

using nlohmann::json;

class BookTest : public testing::Test {
 protected:
  BookTest() { std::filesystem::create_directories(folders.home); }

  static Record service(const std::string& name, const std::string& value, const std::string& scope = "global") {
    Record record;
    record.name = name;
    record.scope = scope;
    record.value = LockedString::copy_of(value).value();
    return record;
  }
  static Record custom(const std::string& env, const std::string& placeholder, const std::string& scope = "global") {
    Record record = service(env, "value-of-" + env, scope);
    record.kind = Kind::kCustom;
    record.targets = {"api.example.com"};
    record.placeholder = placeholder;
    return record;
  }
  static Record command(const std::string& name, const std::string& script) {
    Record record;
    record.name = name;
    record.source = Source::kCommand;
    record.reference = script;
    record.refresh_s = 3600;
    return record;
  }
  void set(Record record, Book::SetOptions options = {}) {
    auto done = book.set(std::move(record), options, "global");
    ASSERT_TRUE(done) << done.error().describe();
  }
  json credentials(const std::string& sandbox = "box") {
    auto got = book.credentials(sandbox);
    EXPECT_TRUE(got) << got.error().describe();
    return json::parse(got->json.reveal());
  }
  bool has_variable(const std::string& entry, const std::string& sandbox = "box") {
    const auto environment = book.environment(sandbox).value();
    return std::ranges::find(environment, entry) != environment.end();
  }

  // What a gateway tells of a login.
  static LoginUpdate told(const std::string& access, std::uint64_t generation = 0,
                          const std::string& service = "anthropic") {
    LoginUpdate update;
    update.service = service;
    update.generation = generation;
    update.tokens.access = LockedString::copy_of(access).value();
    update.tokens.refresh = LockedString::copy_of("refresh-token").value();
    return update;
  }
  static json login(const json& all) {
    return *std::ranges::find_if(all, [](const json& c) { return c["kind"] == "oauth"; });
  }

  TemporaryFolder top = TemporaryFolder::make("sbx-book").value();
  VaultFolders folders{top.path() / "home", top.path() / "config"};
  Book book{folders, "file"};
};

TEST_F(BookTest, GivesASandboxItsCredentialsAndNothingButSentinelsToTheGuest) {
  set(service("github", "gh\"p_secret"));
  const json all = credentials();
  ASSERT_EQ(all[0]["kind"], "service");
  EXPECT_EQ(all[0]["header"], "authorization");
  EXPECT_EQ(all[0]["format"], "Bearer %s");
  EXPECT_EQ(all[0]["value"], "gh\"p_secret");
  EXPECT_EQ(all[1]["basic_user"], "x-access-token");
  EXPECT_EQ(all[1]["domains"], (json{"github.com", "gist.github.com"}));
  const auto environment = book.environment("box").value();
  for (const auto& entry : environment) EXPECT_EQ(entry.find("secret"), std::string::npos);
  EXPECT_TRUE(has_variable("GH_TOKEN=proxy-managed"));
  EXPECT_TRUE(has_variable("GITHUB_TOKEN=proxy-managed"));
  EXPECT_TRUE(has_variable("SBX_CRED_GITHUB_MODE=apikey"));
  EXPECT_TRUE(has_variable("SBX_CRED_OPENAI_MODE=none"));
}

TEST_F(BookTest, PrefersASandboxesOwnSecretAndKeepsItFromOthers) {
  set(service("xai", "for all"));
  set(service("xai", "for one", "box"));
  set(service("groq", "only one", "box"));
  EXPECT_EQ(credentials("box")[0]["value"], "only one");
  EXPECT_EQ(credentials("box")[1]["value"], "for one");
  EXPECT_EQ(credentials("other")[0]["value"], "for all");
  EXPECT_EQ(book.credentials("other")->json.reveal().find("only one"), std::string_view::npos);
  EXPECT_FALSE(has_variable("GROQ_API_KEY=proxy-managed", "other"));
}

TEST_F(BookTest, PrefersAnApiKeyToALogin) {
  const auto oauth = [&] {
    const json all = credentials();
    return std::ranges::count_if(all, [](const json& c) { return c["kind"] == "oauth"; });
  };
  EXPECT_GT(oauth(), 0);
  set(service("anthropic", "key"));
  EXPECT_EQ(oauth(), 0);
}

TEST_F(BookTest, KeepsALoginForItsSandboxAloneUntilItIsRemoved) {
  EXPECT_FALSE(login(credentials()).contains("access"));
  ASSERT_TRUE(book.keep_login("box", told("first-token")));
  ASSERT_TRUE(book.keep_login("box", told("access-token")));
  EXPECT_EQ(book.keep_login("box", told("x", 0, "no-such-service")).error().code, ErrorCode::kNotFound);
  EXPECT_EQ(login(credentials())["access"], "access-token");
  EXPECT_EQ(login(credentials())["refresh"], "refresh-token");
  EXPECT_FALSE(login(credentials("other")).contains("access"));
  EXPECT_TRUE(has_variable("SBX_CRED_ANTHROPIC_MODE=oauth"));
  EXPECT_TRUE(has_variable("SBX_CRED_ANTHROPIC_MODE=none", "other"));
  const auto listed = book.list({.kind = Kind::kService, .name = "anthropic"}).value();
  ASSERT_EQ(listed.size(), 1U);
  EXPECT_EQ(listed[0].masked.find("token-"), std::string::npos);
  {
    Book next(folders, "");
    const auto again = next.credentials("box");
    ASSERT_TRUE(again) << again.error().describe();
    EXPECT_EQ(login(json::parse(again->json.reveal()))["access"], "access-token") << "of a daemon that is gone";
  }
  ASSERT_TRUE(book.remove({.scope = "box"}));
  EXPECT_FALSE(login(credentials()).contains("access"));
}

// A gateway that has not been told of the removal yet sends what it has.
TEST_F(BookTest, ALoginThatWasRemovedDoesNotComeBack) {
  ASSERT_TRUE(book.keep_login("box", told("first-token")));
  EXPECT_EQ(login(credentials())["generation"], 0);
  ASSERT_TRUE(book.remove({.kind = Kind::kService, .scope = "box", .name = "anthropic"}));
  ASSERT_TRUE(book.keep_login("box", told("late-token"))) << "nothing that a gateway could do better";
  EXPECT_FALSE(login(credentials()).contains("access"));
  EXPECT_EQ(login(credentials())["generation"], 1);
  EXPECT_EQ(login(credentials("other"))["generation"], 0);
  {
    Book next(folders, "");
    ASSERT_TRUE(next.keep_login("box", told("late-token")));
    EXPECT_FALSE(login(json::parse(next.credentials("box")->json.reveal())).contains("access"))
        << "nor after the daemon was started anew";
  }
  ASSERT_TRUE(book.keep_login("box", told("next-token", 1))) << "a new login is one";
  EXPECT_EQ(login(credentials())["access"], "next-token");
  ASSERT_TRUE(book.forget_sandbox("box"));
  EXPECT_EQ(login(credentials())["generation"], 0);
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folders.home), {}), 0) << "nothing is left behind";
}

TEST_F(BookTest, ALoginIsNotRemovedWhereThatCannotBeNoted) {
  ASSERT_TRUE(book.keep_login("box", told("first-token")));
  std::filesystem::create_directory(folders.home / "secrets.logins");
  EXPECT_FALSE(book.remove({.scope = "box"})) << "it would come back";
  EXPECT_EQ(login(credentials("box"))["access"], "first-token");
}

TEST_F(BookTest, HandsOutPlaceholdersByTheNameOfTheirVariable) {
  set(custom("API_TOKEN", "sbx-cs-aaaaaaaa"));
  EXPECT_TRUE(has_variable("API_TOKEN=sbx-cs-aaaaaaaa"));
  const json all = credentials();
  EXPECT_EQ(all[0]["kind"], "custom");
  EXPECT_EQ(all[0]["placeholder"], "sbx-cs-aaaaaaaa");
  EXPECT_EQ(all[0]["value"], "value-of-API_TOKEN");
  EXPECT_EQ(all[0]["in_body"], false);
}

TEST_F(BookTest, RefusesASecondSecretOfOneNameUnlessToldToReplaceIt) {
  set(service("xai", "one"));
  auto again = book.set(service("xai", "two"), {}, "global");
  ASSERT_FALSE(again);
  EXPECT_EQ(again.error().code, ErrorCode::kConflict);
  EXPECT_NE(again.error().message.find("already exists"), std::string::npos);
  set(service("xai", "two"), {.replace = true});
  EXPECT_EQ(credentials()[0]["value"], "two");
  set(custom("A", "sbx-cs-aaaaaaaa"));
  EXPECT_EQ(book.set(custom("A", "sbx-cs-bbbbbbbb"), {}, "global").error().message,
            "custom secret env \"A\" already exists in scope global with placeholder sbx-cs-aaaaaaaa");
  EXPECT_FALSE(book.set(custom("B", "sbx-cs-aaaaaaaa"), {}, "global")) << "one placeholder for two secrets";
  EXPECT_FALSE(book.set(custom("B", "x-sbx-cs-aaaaaaaa"), {}, "global")) << "one placeholder inside the other";
}

TEST_F(BookTest, IsTheSameAfterARestart) {
  set(service("xai", "kept"));
  set(custom("A", "sbx-cs-aaaaaaaa", "box"));
  Book next(folders, "");
  const auto list = next.list({});
  ASSERT_TRUE(list) << list.error().describe();
  ASSERT_EQ(list->size(), 2U);
  EXPECT_EQ(list->at(0).masked, "****");
  EXPECT_EQ(next.store()->kind, "file");
  EXPECT_EQ(json::parse(next.credentials("box")->json.reveal())[0]["value"], "kept");
}

TEST_F(BookTest, RemovesBySandboxAndByName) {
  set(service("xai", "all"));
  set(service("xai", "own", "box"));
  set(custom("A", "sbx-cs-aaaaaaaa", "box"));
  EXPECT_EQ(book.remove({.scope = "box"})->size(), 2U);
  EXPECT_EQ(book.list({})->size(), 1U);
  EXPECT_EQ(book.remove({})->size(), 1U);
  EXPECT_EQ(Book(folders, "").list({})->size(), 0U);
  EXPECT_FALSE(std::filesystem::exists(folders.home / "secrets.store"));
}

TEST_F(BookTest, FetchesAtRegistrationAndThenOnlyWhenDue) {
  const std::string count = top.path() / "count";
  set(command("xai", "echo x >> " + count + "; printf fetched"));
  EXPECT_EQ(credentials()[0]["value"], "fetched");
  EXPECT_EQ(credentials()[0]["value"], "fetched");
  EXPECT_EQ(read_file(count).value(), "x\n");
  EXPECT_EQ(book.refresh()->size(), 0U);
  EXPECT_EQ(book.list({})->at(0).masked, "(from command)");
  Book next(folders, "");
  EXPECT_EQ(json::parse(next.credentials("box")->json.reveal())[0]["value"], "fetched");
  EXPECT_EQ(read_file(count).value(), "x\nx\n");
}

TEST_F(BookTest, RefreshesWhatIsOldAndTellsWhereItChanged) {
  const auto path = top.path() / "value";
  ASSERT_TRUE(write_file_atomically(path, "one"));
  Record record = command("xai", "cat " + path.string());
  record.refresh_s = 1;
  set(std::move(record));
  EXPECT_EQ(credentials()[0]["value"], "one");
  ASSERT_TRUE(write_file_atomically(path, "two"));
  std::vector<std::string> changed;
  for (int i = 0; i < 400 && changed.empty(); ++i) {
    changed = book.refresh().value();
    ::usleep(10'000);
  }
  EXPECT_EQ(changed, std::vector<std::string>{"global"});
  EXPECT_EQ(credentials()[0]["value"], "two");
}

TEST_F(BookTest, WithholdsWhatCannotBeFetchedAndSaysWhy) {
  EXPECT_FALSE(book.set(command("xai", "exit 1"), {}, "global"));
  EXPECT_EQ(book.list({})->size(), 0U);
  set(command("xai", "exit 1"), {.verify = false});
  set(service("groq", "there"));
  const auto got = book.credentials("box").value();
  EXPECT_EQ(got.withheld.size(), 1U);
  EXPECT_NE(got.withheld.at(0).find("xai"), std::string::npos);
  EXPECT_EQ(json::parse(got.json.reveal())[0]["value"], "there");
}

TEST_F(BookTest, AValueThatCannotBeFetchedAnewStaysInUseAndIsNotCalledWithheld) {
  const auto file = folders.home / "token";
  ASSERT_TRUE(write_file_atomically(file, "had"));
  Record record = command("xai", "cat " + file.string());
  record.refresh_s = 0;  // fetched at every use
  set(std::move(record));
  EXPECT_EQ(credentials()[0]["value"], "had");
  ASSERT_TRUE(std::filesystem::remove(file));
  const auto got = book.credentials("box").value();
  EXPECT_EQ(json::parse(got.json.reveal())[0]["value"], "had");
  EXPECT_EQ(got.withheld, std::vector<std::string>{});
}

TEST_F(BookTest, KeepsWhatItHadWhenTheStoreCannotBeWritten) {
  class Failing : public Vault {
   public:
    Result<std::vector<Entry>> load() override { return std::vector<Entry>(); }
    Result<void> save(const std::vector<Entry>&, const std::string&) override {
      if (works) return {};
      return fail(ErrorCode::kUnavailable, "disk full");
    }
    std::string kind() const override { return "file"; }
    std::string description() const override { return "test"; }
    bool works = true;
  };
  auto vault = std::make_unique<Failing>();
  auto* control = vault.get();
  Book other(folders, std::move(vault));
  ASSERT_TRUE(other.set(service("xai", "old"), {}, "global"));
  control->works = false;
  EXPECT_FALSE(other.set(service("xai", "new"), {.replace = true}, "global"));
  EXPECT_FALSE(other.set(service("groq", "new"), {}, "global"));
  EXPECT_FALSE(other.remove({}));
  const json all = json::parse(other.credentials("box")->json.reveal());
  EXPECT_EQ(all[0]["value"], "old");
  EXPECT_EQ(other.list({})->size(), 1U);
}

TEST_F(BookTest, RefusesEverythingWhileTheStoreIsDamagedAndLosesNothing) {
  set(service("xai", "precious"));
  const auto path = folders.home / "secrets.enc";
  const std::string good = read_file(path).value();
  ASSERT_TRUE(write_file_atomically(path, good.substr(0, good.size() - 3)));
  Book next(folders, "");
  EXPECT_FALSE(next.set(service("groq", "x"), {}, "global"));
  EXPECT_FALSE(next.credentials("box"));
  EXPECT_EQ(read_file(path).value(), good.substr(0, good.size() - 3));
  ASSERT_TRUE(write_file_atomically(path, good));
  EXPECT_EQ(json::parse(next.credentials("box")->json.reveal())[0]["value"], "precious");
}

TEST_F(BookTest, RegistriesAreForTheHostUnlessSaidOtherwise) {
  Record record = service("ghcr.io", "password", "host-only");
  record.kind = Kind::kRegistry;
  record.username = "me";
  set(std::move(record));
  EXPECT_EQ(book.credentials("box")->json.reveal().find("password"), std::string_view::npos);
  Record shared = service("ghcr.io", "password2");
  shared.kind = Kind::kRegistry;
  shared.username = "me";
  set(std::move(shared));
  EXPECT_EQ(credentials()[0]["basic_user"], "me");
  EXPECT_EQ(credentials()[0]["domains"], json{"ghcr.io"});
  // What listens beside it on the same host does not get its password.
  Record beside = service("localhost:5000", "password3");
  beside.kind = Kind::kRegistry;
  beside.username = "me";
  set(std::move(beside));
  EXPECT_EQ(credentials()[1]["domains"], json{"localhost:5000"});
}

}  // namespace
}  // namespace sbx::secret
