#include "cli/secret_commands.h"

#include <unistd.h>

#include <cstdlib>
#include <iostream>

#include "cli/commands.h"
#include "cli/read_secret.h"
#include "cli/table.h"
#include "secret/mask.h"
#include "secret/services.h"
#include "store/clock.h"

namespace sbx::cli {

using nlohmann::json;

namespace {

// Where `op` and `aws` find their account, and programs at all: the daemon may have been started somewhere else.
constexpr const char* kCaptured[] = {"PATH",       "OP_ACCOUNT",         "AWS_PROFILE",
                                     "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_CONFIG_FILE"};

json captured_environment() {
  json environment = json::object();
  for (const char* name : kCaptured) {
    if (const char* value = std::getenv(name); value != nullptr) environment[name] = value;
  }
  return environment;
}

Result<void> check_source(const SecretSource& source) {
  const int ways = (source.value.empty() ? 0 : 1) + (source.ref.empty() ? 0 : 1) + (source.command.empty() ? 0 : 1);
  if (ways > 1) return fail(ErrorCode::kInvalid, "--token, --ref and --command exclude each other");
  const bool fetched = !source.ref.empty() || !source.command.empty();
  if (!fetched && (!source.refresh.empty() || source.no_verify || source.show_error))
    return fail(ErrorCode::kInvalid, "--refresh, --no-verify and --show-error go with --ref or --command");
  return {};
}

// Completes the head, and gets the value unless the daemon is to fetch it.
Result<LockedString> read_source(const SecretSource& source, const std::string& what, json& head) {
  SBX_CHECK(check_source(source), "reading the flags");
  if (!source.ref.empty() || !source.command.empty()) {
    head[source.ref.empty() ? "command" : "ref"] = source.ref.empty() ? source.command : source.ref;
    head["environment"] = captured_environment();
    head["verify"] = !source.no_verify;
    head["show_error"] = source.show_error;
    if (source.refresh == "on-demand")
      head["refresh_s"] = 0;
    else if (!source.refresh.empty())
      head["refresh_s"] = SBX_TRY(store::parse_duration(source.refresh), "reading --refresh") / 1000;
    return LockedString();
  }
  if (!source.value.empty()) {
    std::cerr << "WARNING: a value on the command line can be seen by other users of this machine and stays in the "
                 "shell's history; pipe it in instead\n";
    return LockedString::copy_of(source.value);
  }
  return read_secret("Enter the value for " + what + ": ");
}

std::string shown_scope(const std::string& scope) {
  if (scope == "global") return "(global)";
  if (scope == "host-only") return "(host only)";
  return scope;
}

std::string text(const json& object, const char* key) {
  return object.is_object() && object.contains(key) && object[key].is_string() ? object[key].get<std::string>() : "";
}

std::string joined(const json& list) {
  std::string all;
  for (const auto& entry : list) all += (all.empty() ? "" : ", ") + entry.get<std::string>();
  return all;
}

void print_applied(const json& answer) {
  for (const auto& name : answer.value("applied", json::array()))
    std::cout << "Applied secret updates for sandbox \"" << name.get<std::string>() << "\"\n";
}

void print_first_notice(const json& answer) {
  if (!answer.value("first", false)) return;
  const json store = answer.value("store", json::object());
  if (text(store, "kind") == "file")
    std::cerr << "NOTE: No keychain detected (no Secret Service on this session's bus): secrets are kept in an "
                 "encrypted file that\n      permissions protect, not a password: "
              << text(store, "description") << "\n";
  else
    std::cerr << "NOTE: secrets are kept in the " << text(store, "description") << "\n";
}

// Stores it; asks before it replaces one, where somebody can answer.
Result<json> store_secret(const ApiClient& client, json head, const LockedString& value) {
  auto answer = client.put_secret(head, value);
  const bool taken = !answer && answer.error().code == ErrorCode::kConflict && head.value("type", "") != "custom";
  if (taken && ::isatty(0) == 1) {
    SBX_CHECK(confirm(answer.error().message.substr(0, answer.error().message.find(';')) + ". Replace it?"), "asking");
    head["replace"] = true;
    answer = client.put_secret(head, value);
  }
  if (answer) print_first_notice(*answer);
  return answer;
}

Result<json> registry_head(const SecretSetOptions& o) {
  if (!o.words.empty()) return fail(ErrorCode::kInvalid, "--registry takes the place of SERVICE");
  if (!o.source.value.empty() || !o.source.ref.empty() || !o.source.command.empty())
    return fail(ErrorCode::kInvalid, "a registry's password comes from stdin (--password-stdin)");
  if (o.all_sandboxes && !o.sandbox.empty())
    return fail(ErrorCode::kInvalid, "--all-sandboxes and --sandbox exclude each other");
  json head = {{"type", "registry"},
               {"name", o.registry},
               {"scope", o.all_sandboxes ? "global" : "host-only"},
               {"username", o.username}};
  if (!o.auth_endpoint.empty()) head["auth_endpoint"] = o.auth_endpoint;
  return head;
}

// The service, and into `sandbox` the deprecated first word.
Result<std::string> service_of(const SecretSetOptions& o, std::string& sandbox) {
  if (o.words.size() > 2) return fail(ErrorCode::kInvalid, "sbx secret set takes one SERVICE");
  if (o.words.size() == 2) {
    std::cerr << "WARNING: naming the sandbox before the service is deprecated; use --sandbox " << o.words[0] << "\n";
    if (!sandbox.empty() && sandbox != o.words[0]) return fail(ErrorCode::kInvalid, "two sandboxes are named");
    sandbox = o.words[0];
    return o.words[1];
  }
  if (o.words.size() == 1) return o.words[0];
  if (::isatty(0) == 0) return fail(ErrorCode::kInvalid, "name a SERVICE, such as github (sbx secret set --help)");
  std::string names;
  for (const auto& service : secret::services()) names += (names.empty() ? "" : ", ") + std::string(service.name);
  std::cerr << "Services: " << names << "\nService: ";
  std::string name;
  std::getline(std::cin, name);
  return name;
}

Result<json> service_head(const SecretSetOptions& o, std::string& sandbox) {
  if (o.password_stdin || o.all_sandboxes || !o.username.empty() || !o.auth_endpoint.empty())
    return fail(ErrorCode::kInvalid, "--password-stdin, --all-sandboxes and --username go with --registry");
  const std::string service = SBX_TRY(service_of(o, sandbox), "reading the service");
  if (o.oauth) {
    if (service == "anthropic")
      return fail(ErrorCode::kInvalid,
                  "anthropic is logged in to inside a sandbox, with /login; its tokens stay outside");
    return fail(ErrorCode::kInvalid, "--oauth is not built yet; store an API key instead");
  }
  return json{{"type", "service"}, {"name", service}};
}

}  // namespace

Result<int> secret_set(const ApiClient& client, const SecretSetOptions& o) {
  std::string sandbox = o.sandbox;
  if (o.global) std::cerr << "WARNING: -g is deprecated: every sandbox is the default\n";
  if (o.global && !sandbox.empty()) return fail(ErrorCode::kInvalid, "-g and --sandbox exclude each other");
  const bool registry = !o.registry.empty();
  json head = SBX_TRY(registry ? registry_head(o) : service_head(o, sandbox), "reading the command");
  if (!sandbox.empty()) head["sandbox"] = sandbox;
  head["replace"] = o.force;
  const LockedString value = SBX_TRY(read_source(o.source, head.value("name", ""), head), "reading the secret");
  const json answer = SBX_TRY(store_secret(client, head, value), "storing the secret");
  const json saved = answer.value("secret", json::object());
  std::cout << "Saved secret \"" << text(saved, "name") << "\" in scope \"" << text(saved, "scope") << "\"\n";
  print_applied(answer);
  return 0;
}

Result<int> secret_set_custom(const ApiClient& client, const SecretCustomOptions& o) {
  json head = {{"type", "custom"},     {"name", o.env},        {"targets", o.hosts},
               {"in_body", o.in_body}, {"sandbox", o.sandbox}, {"replace", o.force}};
  if (!o.placeholder.empty()) head["placeholder"] = o.placeholder;
  const LockedString value = SBX_TRY(read_source(o.source, o.env, head), "reading the secret");
  const json answer = SBX_TRY(store_secret(client, head, value), "storing the secret");
  const json saved = answer.value("secret", json::object());
  std::cout << "Saved custom secret placeholder \"" << text(saved, "placeholder") << "\" for target \""
            << joined(saved.value("targets", json::array())) << "\" env \"" << text(saved, "env") << "\" in scope \""
            << text(saved, "scope") << "\"\n"
            << "You may need to update environment variable " << text(saved, "env")
            << " inside existing sandboxes: their shells and services keep what they started with\n";
  print_applied(answer);
  return 0;
}

Result<int> secret_list(const ApiClient& client, const SecretListOptions& o) {
  if (o.global && !o.sandbox.empty()) return fail(ErrorCode::kInvalid, "--global and --sandbox exclude each other");
  std::string query = "?";
  if (o.global) query += "scope=global&";
  if (!o.sandbox.empty()) query += "sandbox=" + percent_encode(o.sandbox) + "&";
  if (!o.service.empty()) query += "type=service&name=" + percent_encode(o.service) + "&";
  json answer = SBX_TRY(client.call("GET", "/v1/secrets" + query), "listing the secrets");
  json& secrets = answer["secrets"];
  const json& custom = answer["custom_secrets"];
  if (!o.service.empty()) {
    json rows = json::array();
    for (const auto& entry : secrets)
      rows.push_back(
          {{"scope", entry["scope"]}, {"type", entry["type"]}, {"name", entry["name"]}, {"secret", entry["secret"]}});
    secrets = rows;
  }
  if (o.json) {
    int only_in_environment = 0;
    const json all = SBX_TRY(client.call("GET", "/v1/secrets?type=service"), "listing the secrets");
    for (const auto& service : secret::services()) {
      bool stored = false, set = false;
      for (const auto& entry : all["secrets"]) stored = stored || text(entry, "name") == service.name;
      for (const auto& name : service.environment) set = set || std::getenv(std::string(name).c_str()) != nullptr;
      if (set && !stored) ++only_in_environment;
    }
    answer["env_only_count"] = only_in_environment;
    print_json(answer);
    return 0;
  }
  if (o.quiet) {
    for (const json* list : std::initializer_list<const json*>{&secrets, &custom}) {
      for (const auto& entry : *list) std::cout << text(entry, "name") << "\n";
    }
    return 0;
  }
  if (secrets.empty() && custom.empty()) {
    if (o.global || !o.sandbox.empty())
      std::cout << "No secrets found for scope \"" << (o.global ? "global" : o.sandbox) << "\".\n";
    else
      std::cout << "No secrets found.\n";
    return 0;
  }
  if (!secrets.empty()) {
    std::vector<std::vector<std::string>> table = {{"SCOPE", "TYPE", "NAME", "SECRET"}};
    for (const auto& entry : secrets)
      table.push_back(
          {shown_scope(text(entry, "scope")), text(entry, "type"), text(entry, "name"), text(entry, "secret")});
    std::cout << format_table(table);
  }
  if (!custom.empty()) {
    std::vector<std::vector<std::string>> table = {{"SCOPE", "TARGETS", "ENV", "PLACEHOLDER", "SECRET"}};
    for (const auto& entry : custom)
      table.push_back({shown_scope(text(entry, "scope")), joined(entry["targets"]), text(entry, "env"),
                       text(entry, "placeholder"), text(entry, "secret")});
    std::cout << (secrets.empty() ? "" : "\n") << "CUSTOM SECRETS\n" << format_table(table);
  }
  std::cerr << "Store: " << text(answer["store"], "description") << "\n";
  return 0;
}

Result<int> secret_remove(const ApiClient& client, const SecretRemoveOptions& o) {
  const bool custom = !o.env.empty() || !o.placeholder.empty() || !o.host.empty();
  const int kinds = (o.service.empty() ? 0 : 1) + (o.registry.empty() ? 0 : 1) + (custom ? 1 : 0) + (o.all ? 1 : 0);
  if (kinds != 1)
    return fail(ErrorCode::kInvalid, "say what to remove: SERVICE, --registry HOST, --env NAME, or --all");
  if (custom && o.env.empty() && o.placeholder.empty())
    return fail(ErrorCode::kInvalid, "--host narrows --env or --placeholder down; name one of them too");
  if (o.all_sandboxes && o.registry.empty()) return fail(ErrorCode::kInvalid, "--all-sandboxes goes with --registry");
  std::string query = "?";
  const auto add = [&query](const char* key, const std::string& value) {
    if (!value.empty()) query += std::string(key) + "=" + percent_encode(value) + "&";
  };
  if (!o.sandbox.empty())
    add("sandbox", o.sandbox);
  else if (!o.all)
    add("scope", !o.registry.empty() && !o.all_sandboxes ? "host-only" : "global");
  if (o.all) add("all", "1");
  if (!o.all) add("type", custom ? "custom" : o.registry.empty() ? "service" : "registry");
  add("name", custom ? o.env : o.registry.empty() ? o.service : o.registry);
  add("target", o.host);
  add("placeholder", o.placeholder);
  if (!o.force) SBX_CHECK(confirm(o.all ? "Delete all selected secrets?" : "Delete selected secret?"), "asking");
  const json answer = SBX_TRY(client.call("DELETE", "/v1/secrets" + query), "removing secrets");
  for (const auto& entry : answer.value("removed", json::array()))
    std::cout << "Deleted secret \"" << text(entry, "name") << "\" from scope \"" << text(entry, "scope") << "\"\n";
  if (answer.value("removed", json::array()).empty()) std::cout << "No secrets found.\n";
  print_applied(answer);
  return 0;
}

Result<int> secret_import(const ApiClient& client, const SecretImportOptions& o) {
  if (!o.service.empty() && secret::find_service(o.service) == nullptr)
    return fail(ErrorCode::kInvalid, "unknown service \"" + o.service + "\"");
  int found = 0;
  for (const auto& service : secret::services()) {
    if (!o.service.empty() && o.service != service.name) continue;
    for (const auto& variable : service.environment) {
      const char* set = std::getenv(std::string(variable).c_str());
      if (set == nullptr || *set == '\0' || set == secret::kSentinel) continue;
      ++found;
      const LockedString value = SBX_TRY(LockedString::copy_of(set), "reading the environment");
      const std::string what = std::string(service.name) + " from " + std::string(variable);
      if (o.dry_run) {
        std::cout << "Would import " << what << " (" << secret::mask(value) << ")\n";
        break;
      }
      if (o.service.empty() && !o.all) {
        if (::isatty(0) == 0)
          return fail(ErrorCode::kInvalid,
                      "stdin is not a terminal; name a SERVICE, or pass --all for every one found");
        if (!confirm("Import " + what + "?")) break;
      }
      const json head = {{"type", "service"}, {"name", service.name}, {"replace", o.force}};
      const auto answer = client.put_secret(head, value);
      if (!answer && answer.error().code == ErrorCode::kConflict) {
        std::cout << "Skipped " << what << ": there is one already (--force replaces it)\n";
        break;
      }
      if (!answer) return std::unexpected(answer.error());
      print_first_notice(*answer);
      std::cout << "Imported " << what << "\n";
      print_applied(*answer);
      break;
    }
  }
  if (found == 0) std::cout << "No credentials found in this environment\n";
  return 0;
}

}  // namespace sbx::cli
