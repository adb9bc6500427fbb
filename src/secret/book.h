// Book: all secrets of an instance, in locked memory, backed by a vault. What a sandbox is given is asked of it here;
// nothing else of the daemon sees a value. Blocking (the vault, programs that fetch values); one thread at a time: the
// daemon gives it a thread of its own (sandbox/secrets.h).
#pragma once

#include <optional>

#include "secret/login.h"
#include "secret/login_generations.h"
#include "secret/record.h"
#include "secret/vault.h"

namespace sbx::secret {

// What one sandbox's gateway is to be told.
struct Credentials {
  LockedString json;                  // an array of Credential (docs/development/protocols.md)
  std::vector<std::string> withheld;  // for people: what could not be fetched, and why
};

// A record as it may be shown: everything but the value, which is masked.
struct Summary {
  Kind kind = Kind::kService;
  std::string scope, name, masked;
  Source source = Source::kValue;
  std::string reference;
  std::int64_t refresh_s = 0;
  std::string username, auth_endpoint;
  std::vector<std::string> targets;
  std::string placeholder;
  bool in_body = false;
  std::int64_t created_at = 0;
};

class Book {
 public:
  // Opens nothing yet: the vault is read when it is first needed. `preferred` as for open_vault().
  Book(VaultFolders folders, std::string preferred)
      : folders_(std::move(folders)), preferred_(std::move(preferred)), generations_(generations_file(folders_)) {}
  // With a vault that is already there.
  Book(VaultFolders folders, std::unique_ptr<Vault> vault)
      : folders_(std::move(folders)), vault_(std::move(vault)), generations_(generations_file(folders_)) {}

  struct SetOptions {
    bool replace = false;     // an existing one; else kConflict
    bool verify = true;       // fetch a referenced value once, before it is stored
    bool show_error = false;  // FetchOptions::show_error, for that
  };
  // The record's scope is "global", "host-only" or a sandbox's id; `scope_name` is that for people.
  Result<Summary> set(Record record, SetOptions options, const std::string& scope_name);

  // The tokens of a login that was made in that sandbox, in place of those from before. Those of a login that has been
  // removed since are dropped, which is no error. kNotFound for a service that no sandbox can be logged in to.
  Result<void> keep_login(const std::string& sandbox_id, const LoginUpdate& login);

  // Which records; empty members match everything. Logins are matched with the services that they are for.
  struct Filter {
    std::optional<Kind> kind = {};
    std::string scope = {}, name = {};
    std::string placeholder = {}, target = {};  // custom
    bool matches(const Record& record) const;
  };
  // In order of kind, scope and name.
  Result<std::vector<Summary>> list(const Filter& filter);
  Result<std::vector<Summary>> remove(const Filter& filter);
  // All that is that sandbox's own, which is gone. Where no secret is stored, the vault is not opened.
  Result<void> forget_sandbox(const std::string& sandbox_id);

  // Removes everything; a file that cannot be read any more too. How many secrets there were.
  Result<std::size_t> destroy();

  // The credentials of a sandbox: its own secrets before global ones of the same name, an API key before an OAuth
  // login. Values that are fetched are fetched again once they are older than their refresh time.
  Result<Credentials> credentials(const std::string& sandbox_id);
  // What the sandbox is told instead, "K=V": sentinels, placeholders, SBX_CRED_<SERVICE>_MODE. Never a value.
  Result<std::vector<std::string>> environment(const std::string& sandbox_id);
  // Fetches again what has been fetched and is older than its refresh time; the scopes in which a value changed.
  Result<std::vector<std::string>> refresh();

  // False where no secret is stored, without opening the vault.
  bool in_use() const { return loaded_ ? !records_.empty() : vault_in_use(folders_); }

  struct Store {
    std::string kind, description;
  };
  Result<Store> store();

 private:
  static std::filesystem::path generations_file(const VaultFolders& folders) { return folders.home / "secrets.logins"; }
  Result<void> load();
  Result<void> save(const std::string& key);
  std::vector<Record*> effective_all(Kind kind, const std::string& sandbox_id);
  Result<void> fetch_if_due(Record& record);

  VaultFolders folders_;
  std::string preferred_;
  std::unique_ptr<Vault> vault_;
  LoginGenerations generations_;
  bool loaded_ = false;
  std::vector<Record> records_;
};

}  // namespace sbx::secret
