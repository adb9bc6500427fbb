#include "secret/book.h"

#include <algorithm>
#include <chrono>
#include <map>
#include <tuple>

#include "secret/credential_writer.h"
#include "secret/fetch.h"
#include "secret/file_vault.h"
#include "secret/mask.h"
#include "secret/request.h"
#include "secret/services.h"

namespace sbx::secret {
namespace {

std::int64_t now_ms() {
  return std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::system_clock::now().time_since_epoch())
      .count();
}

std::string shown(const Record& record) {
  if (record.source == Source::kReference) return "(from reference)";
  if (record.source == Source::kCommand) return "(from command)";
  if (record.kind == Kind::kLogin) return "(tokens of a login)";
  return record.kind == Kind::kRegistry ? mask_password(record.value) : mask(record.value);
}

Summary summary_of(const Record& r) {
  return {r.kind,     r.scope,         r.name,    shown(r),      r.source,  r.reference, r.refresh_s,
          r.username, r.auth_endpoint, r.targets, r.placeholder, r.in_body, r.created_at};
}

std::string upper(std::string_view text) {
  std::string result(text);
  std::ranges::transform(result, result.begin(), [](char c) { return c >= 'a' && c <= 'z' ? char(c - 'a' + 'A') : c; });
  return result;
}

}  // namespace

bool Book::Filter::matches(const Record& record) const {
  const bool of_kind = !kind || record.kind == *kind || (*kind == Kind::kService && record.kind == Kind::kLogin);
  return of_kind && (scope.empty() || record.scope == scope) && (name.empty() || record.name == name) &&
         (placeholder.empty() || record.placeholder == placeholder) &&
         (target.empty() || std::ranges::find(record.targets, target) != record.targets.end());
}

Result<void> Book::load() {
  if (loaded_) return {};
  if (!vault_) vault_ = SBX_TRY(open_vault(folders_, preferred_), "opening the secrets' store");
  const auto entries = SBX_TRY(vault_->load(), "reading the stored secrets");
  std::vector<Record> records;
  for (const auto& entry : entries) {
    records.push_back(SBX_TRY(decode(entry.bytes.reveal()), "reading " + entry.key));
    if (records.back().key() != entry.key)
      return fail(ErrorCode::kInvalid, "a stored secret is damaged: it is not what its name says");
  }
  records_ = std::move(records);
  loaded_ = true;
  return {};
}

Result<void> Book::save(const std::string& key) {
  std::vector<Entry> entries;
  for (const auto& record : records_) entries.push_back({record.key(), SBX_TRY(encode(record), "storing the secrets")});
  SBX_CHECK(remember_vault(folders_, *vault_), "storing the secrets");
  return vault_->save(entries, key);
}

Result<Book::Store> Book::store() {
  SBX_CHECK(load(), "looking at the secrets' store");
  return Store{vault_->kind(), vault_->description()};
}

Result<void> Book::fetch_if_due(Record& record) {
  if (record.source == Source::kValue) return {};
  if (record.fetched_at != 0 && now_ms() < record.fetched_at + record.refresh_s * 1000) return {};
  auto argv = record.source == Source::kCommand ? Result<std::vector<std::string>>(shell_command(record.reference))
                                                : reference_command(record.reference);
  if (!argv) return std::unexpected(argv.error());
  FetchOptions options;
  options.environment = record.environment;
  auto value = SBX_TRY(fetch(*argv, options), "fetching a secret");
  SBX_CHECK(clean_value(value), "fetching a secret");
  record.value = std::move(value);
  record.fetched_at = now_ms();
  return {};
}

Result<Summary> Book::set(Record record, SetOptions options, const std::string& scope_name) {
  SBX_CHECK(load(), "storing a secret");
  const std::string key = record.key();
  const auto existing = std::ranges::find(records_, key, &Record::key);
  if (existing != records_.end() && !options.replace) {
    if (record.kind == Kind::kCustom)
      return fail(ErrorCode::kConflict, "custom secret env \"" + record.name + "\" already exists in scope " +
                                            scope_name + " with placeholder " + existing->placeholder);
    return fail(ErrorCode::kConflict, "a secret for " + record.name + " already exists in scope " + scope_name +
                                          "; use --force to replace it");
  }
  for (const auto& other : records_) {
    if (record.kind != Kind::kCustom || other.kind != Kind::kCustom || other.key() == key) continue;
    if (other.placeholder.find(record.placeholder) != std::string::npos ||
        record.placeholder.find(other.placeholder) != std::string::npos)
      return fail(ErrorCode::kConflict, "the placeholder is that of another secret, or a part of it: " + other.name);
  }
  if (record.source != Source::kValue && options.verify) {
    auto argv = record.source == Source::kCommand ? Result<std::vector<std::string>>(shell_command(record.reference))
                                                  : reference_command(record.reference);
    if (!argv) return std::unexpected(argv.error());
    FetchOptions fetching;
    fetching.environment = record.environment;
    fetching.show_error = options.show_error;
    record.value = SBX_TRY(fetch(*argv, fetching), "verifying the secret");
    SBX_CHECK(clean_value(record.value), "verifying the secret");
    record.fetched_at = now_ms();
  }
  record.created_at = now_ms();
  const Summary summary = summary_of(record);
  std::optional<Record> old;
  if (existing != records_.end()) {
    old = std::move(*existing);
    *existing = std::move(record);
  } else {
    records_.push_back(std::move(record));
  }
  auto saved = save(key);
  if (!saved) {  // memory says what the vault says
    const auto at = std::ranges::find(records_, key, &Record::key);
    if (old)
      *at = std::move(*old);
    else
      records_.erase(at);
    return std::unexpected(std::move(saved).error().while_doing("storing the secret"));
  }
  return summary;
}

Result<void> Book::keep_login(const std::string& sandbox_id, const LoginUpdate& login) {
  if (find_oauth_flow(login.service) == nullptr) {
    return fail(ErrorCode::kNotFound, "there is no login for that service");
  }
  if (login.generation != SBX_TRY(generations_.of(sandbox_id, login.service), "keeping a login")) return {};
  SBX_CHECK(load(), "keeping a login");
  Record record;
  record.kind = Kind::kLogin;
  record.scope = sandbox_id;
  record.name = login.service;
  record.value = SBX_TRY(pack_tokens(login.tokens), "keeping a login");
  const auto known = std::ranges::find(records_, record.key(), &Record::key);
  if (known != records_.end() && known->value == record.value) return {};
  SBX_TRY(set(std::move(record), {.replace = true}, "the sandbox"), "keeping a login");
  return {};
}

Result<std::vector<Summary>> Book::list(const Filter& filter) {
  SBX_CHECK(load(), "listing the secrets");
  std::vector<Summary> found;
  for (const auto& record : records_) {
    if (filter.matches(record)) found.push_back(summary_of(record));
  }
  std::ranges::sort(found, [](const Summary& a, const Summary& b) {
    return std::tie(a.kind, a.scope, a.name) < std::tie(b.kind, b.scope, b.name);
  });
  return found;
}

Result<std::vector<Summary>> Book::remove(const Filter& filter) {
  const auto doomed = SBX_TRY(list(filter), "removing secrets");
  std::vector<Summary> removed;
  for (const auto& summary : doomed) {
    const auto at = std::ranges::find_if(records_, [&](const Record& r) {
      return r.kind == summary.kind && r.scope == summary.scope && r.name == summary.name;
    });
    // First: what a gateway sends of this login from now on is taken no more.
    if (at->kind == Kind::kLogin) SBX_CHECK(generations_.advance(at->scope, at->name), "removing a login");
    Record record = std::move(*at);
    records_.erase(at);
    if (auto saved = save(record.key()); !saved) {
      records_.push_back(std::move(record));
      return std::unexpected(std::move(saved).error().while_doing("removing secrets"));
    }
    removed.push_back(summary);
  }
  if (records_.empty()) SBX_CHECK(forget_vault(folders_), "removing secrets");
  return removed;
}

Result<void> Book::forget_sandbox(const std::string& sandbox_id) {
  if (in_use()) SBX_TRY(remove({.scope = sandbox_id}), "removing the sandbox's secrets");
  return generations_.forget_sandbox(sandbox_id);
}

Result<std::size_t> Book::destroy() {
  if (!in_use()) {
    SBX_CHECK(generations_.forget_all(), "removing every secret");
    return 0U;
  }
  if (auto loaded = load(); !loaded) {
    if (vault_ && vault_->kind() != "file") return std::unexpected(loaded.error());
    std::error_code error;
    std::filesystem::remove(FileVault::file_of(folders_), error);
    if (error) return fail(ErrorCode::kInternal, "removing the secrets' file: " + error.message());
    SBX_CHECK(forget_vault(folders_), "removing secrets");
    SBX_CHECK(generations_.forget_all(), "removing secrets");
    return 0U;
  }
  const std::size_t count = SBX_TRY(remove({}), "removing every secret").size();
  SBX_CHECK(generations_.forget_all(), "removing every secret");
  return count;
}

// One record for each name: the sandbox's own, else the global one.
std::vector<Record*> Book::effective_all(Kind kind, const std::string& sandbox_id) {
  std::map<std::string, Record*> by_name;
  for (auto& record : records_) {
    if (record.kind != kind || (record.scope != kGlobalScope && record.scope != sandbox_id)) continue;
    auto& place = by_name[record.name];
    if (place == nullptr || record.scope == sandbox_id) place = &record;
  }
  std::vector<Record*> all;
  for (const auto& [name, record] : by_name) all.push_back(record);
  return all;
}

Result<Credentials> Book::credentials(const std::string& sandbox_id) {
  SBX_CHECK(load(), "reading the secrets of a sandbox");
  Credentials result;
  CredentialWriter writer;
  std::vector<std::string_view> with_key;
  for (const Kind kind : {Kind::kService, Kind::kCustom, Kind::kRegistry}) {
    for (Record* record : effective_all(kind, sandbox_id)) {
      if (kind == Kind::kService) with_key.push_back(record->name);
      if (auto fetched = fetch_if_due(*record); !fetched) {
        // A value that is a little old is better than none, and stays in use; one that was never had is withheld.
        if (record->fetched_at == 0) {
          result.withheld.push_back(record->name + ": " + fetched.error().message);
          continue;
        }
      }
      const Service* service = kind == Kind::kService ? find_service(record->name) : nullptr;
      auto added = kind == Kind::kCustom     ? writer.add_custom(*record)
                   : kind == Kind::kRegistry ? writer.add_registry(*record)
                   : service != nullptr      ? writer.add_service(*service, record->value)
                                             : Result<void>();
      SBX_CHECK(std::move(added), "writing the credentials of a sandbox");
    }
  }
  for (const auto& flow : oauth_flows()) {
    if (std::ranges::find(with_key, flow.service) != with_key.end()) continue;
    std::optional<Tokens> tokens;
    for (const Record* login : effective_all(Kind::kLogin, sandbox_id)) {
      if (login->name == flow.service)
        tokens = SBX_TRY(unpack_tokens(login->value.reveal()), "reading the login to " + login->name);
    }
    const auto generation =
        SBX_TRY(generations_.of(sandbox_id, std::string(flow.service)), "writing the credentials of a sandbox");
    SBX_CHECK(writer.add_oauth(flow, generation, tokens ? &*tokens : nullptr), "writing the credentials of a sandbox");
  }
  result.json = SBX_TRY(writer.finish(), "writing the credentials of a sandbox");
  return result;
}

Result<std::vector<std::string>> Book::environment(const std::string& sandbox_id) {
  SBX_CHECK(load(), "reading the secrets of a sandbox");
  std::map<std::string, std::string> variables;
  std::map<std::string_view, bool> has_key, logins;
  for (const Record* record : effective_all(Kind::kService, sandbox_id)) has_key[record->name] = true;
  for (const Record* record : effective_all(Kind::kLogin, sandbox_id)) logins[record->name] = true;
  for (const auto& service : services()) {
    const bool key = has_key.contains(service.name);
    const bool login = logins.contains(service.name);
    variables["SBX_CRED_" + upper(service.name) + "_MODE"] = key ? "apikey" : login ? "oauth" : "none";
    if (!key) continue;
    for (const auto& name : service.environment) variables[std::string(name)] = kSentinel;
  }
  // Named by the user, so they win over a service's.
  for (const Record* record : effective_all(Kind::kCustom, sandbox_id)) variables[record->name] = record->placeholder;
  std::vector<std::string> environment;
  for (const auto& [name, value] : variables) environment.push_back(name + "=" + value);
  return environment;
}

Result<std::vector<std::string>> Book::refresh() {
  std::vector<std::string> changed;
  for (auto& record : records_) {
    if (record.source == Source::kValue || record.refresh_s == 0 || record.fetched_at == 0) continue;
    const auto before = SBX_TRY(LockedString::copy_of(record.value.reveal()), "refreshing secrets");
    if (!fetch_if_due(record)) continue;  // what there is stays in use; the next round tries again
    if (!(before == record.value) && std::ranges::find(changed, record.scope) == changed.end())
      changed.push_back(record.scope);
  }
  return changed;
}

}  // namespace sbx::secret
