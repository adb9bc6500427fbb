#include "sandbox/create_request.h"

#include <sys/stat.h>
#include <sys/sysinfo.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "files/patterns.h"
#include "policy/policy_store.h"
#include "sandbox/agents.h"
#include "sandbox/json_fields.h"
#include "sandbox/known_members.h"
#include "sandbox/names.h"
#include "sandbox/workspaces.h"

namespace sbx::sandbox {
namespace {

using nlohmann::json;
namespace fs = std::filesystem;

Result<std::int64_t> number(const json& body, const char* key, std::int64_t otherwise, std::int64_t least,
                            std::int64_t most) {
  const auto found = body.find(key);
  if (found == body.end() || found->is_null()) return otherwise;
  if (!found->is_number_integer()) return fail(ErrorCode::kInvalid, std::string(key) + " must be a whole number");
  const auto value = found->get<std::int64_t>();
  if (value == otherwise) return value;
  if (value < least || value > most) {
    return fail(ErrorCode::kInvalid,
                std::string(key) + " must be between " + std::to_string(least) + " and " + std::to_string(most));
  }
  return value;
}

// Before anything is made: a creation that fails over a typing mistake should fail at once.
Result<void> check_rule(const char* decision, const std::vector<std::string>& resources) {
  if (resources.empty()) return {};
  policy::StoredRule rule;
  rule.decision = decision;
  rule.resources = resources;
  SBX_TRY(policy::checked(std::move(rule)), "checking a rule");
  return {};
}

// `others`: the patterns that are there beside these.
Result<std::vector<std::string>> patterns(const json& body, const char* key, std::vector<std::string> others) {
  auto list = SBX_TRY(text_list(body, key), std::string("reading ") + key);
  // They are on a command line of sbx-files.
  if (list.size() > 100) return fail(ErrorCode::kInvalid, std::string(key) + " takes at most 100 patterns");
  others.insert(others.end(), list.begin(), list.end());
  SBX_TRY(files::Patterns::parse(others), std::string("reading ") + key);
  return list;
}

Result<store::Protection> protection(const json& body) {
  store::Protection result;
  result.protect = SBX_TRY(patterns(body, "protect", files::default_protected()), "reading what to protect");
  result.hide = SBX_TRY(patterns(body, "hide", {}), "reading what to hide");
  const auto found = body.find("protect_mode");
  if (found == body.end() || found->is_null() || *found == "report") return result;
  if (*found != "deny")
    return fail(ErrorCode::kInvalid, "protect_mode must be \"report\" or \"deny\", not " + found->dump());
  result.deny = true;
  return result;
}

Result<std::string> text(const json& body, const char* key) {
  const auto found = body.find(key);
  if (found == body.end() || found->is_null()) return std::string();
  if (!found->is_string()) return fail(ErrorCode::kInvalid, std::string(key) + " must be text");
  return found->get<std::string>();
}

}  // namespace

std::int64_t most_memory_mib() {
  struct sysinfo info {};
  if (::sysinfo(&info) != 0) return kLeastMemoryMib;
  const auto total = static_cast<std::int64_t>(info.totalram) * info.mem_unit / (1 << 20);
  return std::max(kLeastMemoryMib, total * 3 / 4);
}

Result<void> check_ssh_agent(const std::string& socket) {
  struct stat there {};
  const bool path = socket.starts_with('/') && socket.find('\0') == std::string::npos;
  if (path && ::stat(socket.c_str(), &there) == 0 && S_ISSOCK(there.st_mode)) return {};
  return fail(ErrorCode::kInvalid, "no SSH agent listens on \"" + socket + "\"; start one (eval \"$(ssh-agent)\")");
}

Result<CreateRequest> parse_create_request(const json& body, const fs::path& home) {
  if (!body.is_object()) return fail(ErrorCode::kInvalid, "the request must be a JSON object");
  SBX_CHECK(only_members(body, {"agent", "name", "image", "workspaces", "cpus", "memory_mib", "auto_stop_s", "env",
                                "allow_network", "deny_network", "profiles", "labels", "ports", "clone", "ssh_agent",
                                "protect", "protect_mode", "hide"}),
            "reading the request");
  CreateRequest request;
  request.agent = SBX_TRY(text(body, "agent"), "reading agent");
  if (request.agent.empty()) request.agent = "shell";
  if (find_agent(request.agent) == nullptr) {
    std::string known;
    for (const auto& agent : agents()) known += (known.empty() ? "" : ", ") + std::string(agent.name);
    return fail(ErrorCode::kInvalid, "unknown agent \"" + request.agent + "\"; known agents: " + known);
  }
  request.name = SBX_TRY(text(body, "name"), "reading name");
  if (!request.name.empty()) SBX_CHECK(check_name(request.name), "checking the name");
  request.image = SBX_TRY(text(body, "image"), "reading image");
  if (const auto workspaces = body.find("workspaces"); workspaces != body.end() && !workspaces->is_null()) {
    if (!workspaces->is_array()) return fail(ErrorCode::kInvalid, "workspaces must be a list");
    std::set<std::string> seen;
    for (const auto& entry : *workspaces) {
      auto workspace = SBX_TRY(check_workspace(entry, home), "checking the workspaces");
      if (!seen.insert(workspace.path).second)
        return fail(ErrorCode::kInvalid, "two workspaces are to be mounted at " + workspace.path);
      workspace.index = static_cast<int>(request.workspaces.size());
      request.workspaces.push_back(std::move(workspace));
    }
  }
  if (const auto clone = body.find("clone"); clone != body.end() && !clone->is_null()) {
    if (!clone->is_object()) return fail(ErrorCode::kInvalid, "clone must be an object; {} asks for one");
    SBX_CHECK(only_members(*clone, {"user_name", "user_email"}), "reading clone");
    request.clone = SBX_TRY(plan_clone(request.workspaces, home), "planning the clone");
    request.clone->identity.name = SBX_TRY(text(*clone, "user_name"), "reading clone");
    request.clone->identity.email = SBX_TRY(text(*clone, "user_email"), "reading clone");
  }
  request.cpus = SBX_TRY(number(body, "cpus", 0, 1, 64), "reading cpus");
  request.memory_mib = SBX_TRY(number(body, "memory_mib", 0, kLeastMemoryMib, most_memory_mib()), "reading memory_mib");
  request.auto_stop_s = SBX_TRY(number(body, "auto_stop_s", 30, 0, 31'536'000), "reading auto_stop_s");
  if (const auto env = body.find("env"); env != body.end() && !env->is_null()) {
    if (!env->is_array()) return fail(ErrorCode::kInvalid, "env must be a list of \"KEY=VALUE\"");
    for (const auto& entry : *env) {
      if (!entry.is_string() || entry.get<std::string>().find('=') == std::string::npos ||
          entry.get<std::string>().starts_with('=')) {
        return fail(ErrorCode::kInvalid, "env must be a list of \"KEY=VALUE\"");
      }
      request.env.push_back(entry.get<std::string>());
    }
  }
  request.allow_network = SBX_TRY(text_list(body, "allow_network"), "reading allow_network");
  request.deny_network = SBX_TRY(text_list(body, "deny_network"), "reading deny_network");
  request.profiles = SBX_TRY(text_list(body, "profiles"), "reading profiles");
  for (const auto& text : SBX_TRY(text_list(body, "ports"), "reading ports"))
    request.ports.push_back(SBX_TRY(parse_port_spec(text), "reading ports"));
  if (const auto agent = body.find("ssh_agent"); agent != body.end() && !agent->is_null()) {
    if (!agent->is_string()) return fail(ErrorCode::kInvalid, "ssh_agent must be the path of a socket");
    request.ssh_agent = agent->get<std::string>();
    SBX_CHECK(check_ssh_agent(request.ssh_agent), "reading ssh_agent");
  }
  request.protection = SBX_TRY(protection(body), "reading the protection");
  SBX_CHECK(check_rule("allow", request.allow_network), "reading allow_network");
  SBX_CHECK(check_rule("deny", request.deny_network), "reading deny_network");
  if (const auto labels = body.find("labels"); labels != body.end() && !labels->is_null()) {
    if (!labels->is_object()) return fail(ErrorCode::kInvalid, "labels must be an object of texts");
    for (const auto& [key, value] : labels->items()) {
      if (key.empty() || !value.is_string()) return fail(ErrorCode::kInvalid, "labels must be an object of texts");
      request.labels[key] = value.get<std::string>();
    }
  }
  return request;
}

}  // namespace sbx::sandbox
