#include <algorithm>
#include <set>

#include "api/handlers.h"
#include "sandbox/json_fields.h"
#include "sandbox/known_members.h"
#include "secret/request.h"
#include "store/clock.h"

namespace sbx::api {

using nlohmann::json;
using sandbox::bool_field;
using sandbox::text_field;
using secret::Book;
using SecretKind = secret::Kind;
using secret::Summary;

namespace {

// The scope as people see it: "global", "host-only", or a sandbox's name.
std::string scope_name(Daemon& daemon, const std::string& scope) {
  if (scope == secret::kGlobalScope || scope == secret::kHostScope) return scope;
  const auto row = daemon.lifecycle.find(scope);
  return row ? row->name : scope;
}

json secret_view(Daemon& daemon, const Summary& s) {
  json view = {{"scope", scope_name(daemon, s.scope)},
               {"type", secret::to_string(s.kind)},
               {"name", s.name},
               {"secret", s.masked},
               {"created_at", store::rfc3339(s.created_at)}};
  if (s.kind == SecretKind::kRegistry) {
    view["username"] = s.username;
    if (!s.auth_endpoint.empty()) view["auth_endpoint"] = s.auth_endpoint;
  }
  if (s.kind == SecretKind::kCustom) {
    view["targets"] = s.targets;
    view["env"] = s.name;
    view["placeholder"] = s.placeholder;
    view["in_body"] = s.in_body;
  }
  view["kind"] = secret::to_string(s.source);
  if (s.source != secret::Source::kValue) {
    view["source"] = s.reference;
    view["refresh"] = s.refresh_s == 0 ? "on-demand" : std::to_string(s.refresh_s) + "s";
  }
  return view;
}

json store_view(const Book::Store& store) { return {{"kind", store.kind}, {"description", store.description}}; }

// The id of the sandbox that `name` names, else the scope itself.
Result<std::string> scope_of(Daemon& daemon, const std::string& scope, const std::string& sandbox) {
  if (sandbox.empty()) return scope;
  return SBX_TRY(daemon.lifecycle.find(sandbox), "finding the sandbox").id;
}

Result<Book::Filter> filter_of(Daemon& daemon, Request& request) {
  Book::Filter filter;
  filter.scope = SBX_TRY(scope_of(daemon, request.query["scope"], request.query["sandbox"]), "reading the scope");
  filter.name = request.query["name"];
  filter.placeholder = request.query["placeholder"];
  filter.target = request.query["target"];
  const std::string type = request.query["type"];
  for (const SecretKind kind : {SecretKind::kService, SecretKind::kRegistry, SecretKind::kCustom, SecretKind::kLogin}) {
    if (type == secret::to_string(kind)) filter.kind = kind;
  }
  if (!type.empty() && !filter.kind)
    return fail(ErrorCode::kInvalid, "type must be service, registry, custom or oauth");
  return filter;
}

// Global services that this sandbox has a secret of its own for.
json shadowed(const std::vector<Summary>& all) {
  json names = json::array();
  for (const auto& own : all) {
    if (own.kind != SecretKind::kService || own.scope == secret::kGlobalScope) continue;
    for (const auto& other : all) {
      const bool same =
          other.kind == SecretKind::kService && other.scope == secret::kGlobalScope && other.name == own.name;
      if (same && std::find(names.begin(), names.end(), json(own.name)) == names.end()) names.push_back(own.name);
    }
  }
  return names;
}

Result<secret::Record> read_record(Daemon& daemon, Request& request, json& head, std::string& name_of_scope) {
  const auto parts = SBX_TRY(secret::split_head(request.secret.reveal()), "reading the secret");
  head = json::parse(parts.json, nullptr, false);
  auto value = SBX_TRY(LockedString::copy_of(parts.value), "reading the secret");
  request.secret.clear();
  if (!head.is_object()) return fail(ErrorCode::kInvalid, "the head of the secret is not a JSON object");
  SBX_CHECK(sandbox::only_members(
                head, {"type", "name", "scope", "sandbox", "replace", "ref", "command", "environment", "refresh_s",
                       "verify", "show_error", "username", "auth_endpoint", "targets", "placeholder", "in_body"}),
            "reading the secret");
  const std::string scope = text_field(head, "scope", std::string(secret::kGlobalScope));
  if (scope != secret::kGlobalScope && scope != secret::kHostScope)
    return fail(ErrorCode::kInvalid, "scope must be global or host-only; for one sandbox, name it in \"sandbox\"");
  head["scope"] = SBX_TRY(scope_of(daemon, scope, text_field(head, "sandbox")), "reading the scope");
  auto record = SBX_TRY(secret::parse_request(head, std::move(value)), "reading the secret");
  name_of_scope = scope_name(daemon, record.scope);
  return record;
}

}  // namespace

Awaitable<json> secrets_of(Daemon& daemon, std::string sandbox_id) {
  json view = json::array();
  auto& secrets = daemon.lifecycle.secrets();
  const bool any = co_await secrets.in_use();
  if (!any) co_return view;
  const Book::Filter everything;
  const auto all = co_await secrets.list(everything);
  if (!all) co_return view;
  for (const auto& summary : *all) {
    const bool own = summary.scope == sandbox_id;
    if (!own && summary.scope != secret::kGlobalScope) continue;
    view.push_back({{"name", summary.name}, {"source", own ? "sandbox" : "global"}});
  }
  co_return view;
}

SBX_HANDLER(set_secret) {
  (void)progress;
  json head;
  std::string name_of_scope;
  SBX_CO_TRY(auto record, read_record(daemon, request, head, name_of_scope), "storing a secret");
  const std::string scope = record.scope;
  Book::SetOptions options;
  options.replace = bool_field(head, "replace");
  options.verify = bool_field(head, "verify", true);
  options.show_error = bool_field(head, "show_error");
  auto& secrets = daemon.lifecycle.secrets();
  const bool first = !co_await secrets.in_use();
  SBX_CO_TRY(const auto summary, co_await secrets.set(std::move(record), options, name_of_scope), "storing a secret");
  SBX_CO_TRY(const auto store, co_await secrets.store(), "storing a secret");
  const auto applied = co_await secrets.apply(scope);
  json answer;
  answer["secret"] = secret_view(daemon, summary);
  answer["applied"] = applied;
  answer["store"] = store_view(store);
  answer["first"] = first;
  co_return answer;
}

SBX_HANDLER(list_secrets) {
  (void)progress;
  SBX_CO_TRY(const auto filter, filter_of(daemon, request), "listing the secrets");
  auto& secrets = daemon.lifecycle.secrets();
  const Book::Filter everything;
  SBX_CO_TRY(const auto all, co_await secrets.list(everything), "listing the secrets");
  SBX_CO_TRY(const auto store, co_await secrets.store(), "listing the secrets");
  SBX_CO_TRY(const auto found, co_await secrets.list(filter), "listing the secrets");
  json answer;
  answer["secrets"] = json::array();
  answer["custom_secrets"] = json::array();
  for (const auto& summary : found)
    answer[summary.kind == SecretKind::kCustom ? "custom_secrets" : "secrets"].push_back(secret_view(daemon, summary));
  answer["shadowed_services"] = shadowed(all);
  answer["store"] = store_view(store);
  co_return answer;
}

SBX_HANDLER(remove_secrets) {
  (void)progress;
  SBX_CO_TRY(const auto filter, filter_of(daemon, request), "removing secrets");
  if (filter.name.empty() && filter.placeholder.empty() && request.query["all"] != "1")
    co_return fail(ErrorCode::kInvalid, "say which secret by name or placeholder, or all=1");
  auto& secrets = daemon.lifecycle.secrets();
  SBX_CO_TRY(const auto removed, co_await secrets.remove(filter), "removing secrets");
  if (removed.empty() && request.query["all"] != "1") {
    const std::string what = filter.name.empty() ? filter.placeholder : filter.name;
    co_return fail(ErrorCode::kNotFound, "no secret \"" + what + "\" found in this scope");
  }
  json answer;
  answer["removed"] = json::array();
  std::set<std::string> scopes, applied;
  for (const auto& summary : removed) {
    answer["removed"].push_back(secret_view(daemon, summary));
    scopes.insert(summary.scope);
  }
  for (const auto& scope : scopes) {
    const auto names = co_await secrets.apply(scope);
    applied.insert(names.begin(), names.end());
  }
  answer["applied"] = applied;
  co_return answer;
}

}  // namespace sbx::api
