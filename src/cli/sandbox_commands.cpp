#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <map>

#include "cli/clone_remote.h"
#include "cli/commands.h"
#include "cli/policy_commands.h"
#include "cli/table.h"
#include "cli/units.h"
#include "cli/workspace_argument.h"
#include "store/clock.h"

namespace sbx::cli {

using nlohmann::json;
namespace fs = std::filesystem;

void print_json(const json& value) { std::cout << value.dump(2, ' ', false, json::error_handler_t::replace) << "\n"; }

ApiClient::Progress to_stderr(bool quiet) {
  return [quiet](const std::string& line) {
    if (!quiet) std::cerr << line << "\n";
  };
}

std::string sandbox_target(const std::string& name) { return "/v1/sandboxes/" + percent_encode(name); }

Result<void> confirm(const std::string& question) {
  if (::isatty(0) == 0) return fail(ErrorCode::kInvalid, "stdin is not a terminal; use --force to skip confirmation");
  std::cerr << question << " (y/N) ";
  std::string answer;
  std::getline(std::cin, answer);
  if (answer != "y" && answer != "Y" && answer != "yes") return fail(ErrorCode::kInvalid, "cancelled");
  return {};
}

json ssh_agent_member() {
  const char* socket = std::getenv("SSH_AUTH_SOCK");
  return socket != nullptr && *socket == '/' ? json{{"ssh_agent", socket}} : json::object();
}

Result<json> create_sandbox(const ApiClient& client, const CreateOptions& options) {
  json body = {{"agent", options.agent}};
  json workspaces = json::array();
  for (const auto& argument : options.paths) {
    workspaces.push_back(to_json(SBX_TRY(parse_workspace_argument(argument), "reading the workspaces")));
  }
  body["workspaces"] = workspaces;
  if (options.clone) {
    if (workspaces.empty()) return fail(ErrorCode::kInvalid, "--clone requires the path of a Git repository");
    const auto repository = SBX_TRY(host_repository(workspaces.front()["path"]), "looking for the repository");
    if (!options.quiet) std::cerr << "✓ Git repository detected: " << repository.root << "\n";
    if (!repository.not_carried_over.empty()) std::cerr << "WARNING: " << repository.not_carried_over << "\n";
    body["clone"] = {{"user_name", repository.user_name}, {"user_email", repository.user_email}};
  }
  if (!options.name.empty()) body["name"] = options.name;
  if (!options.image.empty()) body["image"] = options.image;
  if (options.cpus != 0) body["cpus"] = options.cpus;
  if (!options.memory.empty()) body["memory_mib"] = SBX_TRY(parse_memory(options.memory), "reading --memory");
  if (options.auto_stop == "off")
    body["auto_stop_s"] = 0;
  else if (!options.auto_stop.empty())
    body["auto_stop_s"] = SBX_TRY(store::parse_duration(options.auto_stop), "reading --auto-stop") / 1000;
  body["env"] = SBX_TRY(read_environment(options.env_files, options.env), "reading the environment");
  body["allow_network"] = split_lists(options.allow_network);
  body["deny_network"] = split_lists(options.deny_network);
  body["profiles"] = split_lists(options.profiles);
  if (!options.ports.empty()) body["ports"] = options.ports;
  if (options.ssh_agent) {
    body.update(ssh_agent_member());
    if (!body.contains("ssh_agent"))
      return fail(ErrorCode::kInvalid, "--ssh-agent: SSH_AUTH_SOCK names no agent; start one (eval \"$(ssh-agent)\")");
  }
  if (!options.protect.empty()) body["protect"] = options.protect;
  if (!options.hide.empty()) body["hide"] = options.hide;
  if (!options.protect_mode.empty()) body["protect_mode"] = options.protect_mode;
  SBX_CHECK(choose_policy_once(client), "choosing a policy");
  body["labels"] = json::object();
  for (const auto& label : options.labels) {
    const auto equals = label.find('=');
    body["labels"][label.substr(0, equals)] = equals == std::string::npos ? "" : label.substr(equals + 1);
  }
  json made = SBX_TRY(client.call("POST", "/v1/sandboxes", body, to_stderr(options.quiet)), "creating the sandbox");
  // The sandbox is of use without.
  if (const auto done = set_clone_remote(client, made); !done) std::cerr << "WARNING: " << done.error().message << "\n";
  return made;
}

Result<int> create(const ApiClient& client, const CreateOptions& options) {
  if (!options.quiet)
    std::cerr << "Creating new sandbox" << (options.name.empty() ? "" : " '" + options.name + "'") << "...\n";
  const json made = SBX_TRY(create_sandbox(client, options), "creating a sandbox");
  const std::string name = made.value("name", "");
  if (options.quiet) {
    std::cout << name << "\n";
    return 0;
  }
  std::cout << "✓ Created sandbox '" << name << "'\n";
  if (made.contains("clone"))
    std::cout << "  Clone: " << made["clone"].value("path", "") << " (git fetch sandbox-" << name
              << " brings commits back)\n";
  for (const auto& mount : made.value("mounts", json::array())) {
    const std::string source = mount.value("source", "");
    const std::string target = mount.value("target", "");
    std::cout << "  Workspace: " << source << (target == source ? "" : " at " + target)
              << (mount.value("readonly", false) ? " (read-only mount)" : " (direct mount)") << "\n";
  }
  std::cout << "  Agent: " << made.value("agent", "") << "\n";
  for (const auto& port : made.value("ports", json::array()))
    std::cout << "  Published " << port_text(port, " -> ") << "\n";
  return 0;
}

Result<int> list(const ApiClient& client, const ListOptions& options) {
  json rows = json::array();
  const json answer = SBX_TRY(client.call("GET", "/v1/sandboxes"), "listing the sandboxes");
  for (const auto& entry : answer.value("sandboxes", json::array())) {
    bool keep = true;
    for (const auto& filter : options.filters) {
      if (!filter.starts_with("label="))
        return fail(ErrorCode::kInvalid, "--filter knows label=KEY and label=KEY=VALUE only");
      const std::string wanted = filter.substr(6);
      const auto equals = wanted.find('=');
      const json labels = entry.value("labels", json::object());
      const std::string key = wanted.substr(0, equals);
      keep = keep && labels.contains(key) && (equals == std::string::npos || labels[key] == wanted.substr(equals + 1));
    }
    if (keep) rows.push_back(entry);
  }
  if (options.json) {
    json shown = json::array();
    for (const auto& entry : rows) {
      const std::string status = entry.value("status", "");
      if (status == "running" || status == "stopped") shown.push_back(entry);  // clients know no other state
    }
    print_json({{"sandboxes", shown}});
    return 0;
  }
  if (options.quiet) {
    for (const auto& entry : rows) std::cout << entry.value("name", "") << "\n";
    return 0;
  }
  if (rows.empty()) {
    std::cout << "No sandboxes found\n";
    return 0;
  }
  std::vector<std::vector<std::string>> table = {{"SANDBOX", "AGENT", "STATUS", "PORTS", "WORKSPACE"}};
  for (const auto& entry : rows) {
    std::string workspaces;
    for (const auto& path : entry.value("workspaces", json::array()))
      workspaces += (workspaces.empty() ? "" : ", ") + path.get<std::string>();
    std::string ports;
    for (const auto& port : entry.value("ports", json::array())) {
      const bool v6 = port.value("host_ip", "").find(':') != std::string::npos;
      ports += (ports.empty() ? "" : ", ") + port_text(port, "->", v6 ? "6" : "4");
    }
    table.push_back({entry.value("name", ""), entry.value("agent", ""), entry.value("status", ""), ports, workspaces});
  }
  std::cout << format_table(table);
  return 0;
}

Result<int> inspect(const ApiClient& client, const std::string& name, bool as_json) {
  json view = SBX_TRY(client.call("GET", sandbox_target(name)), "inspecting a sandbox");
  view["state"] = view.value("status", "");
  view.erase("status");
  if (const json workspaces = view.value("workspaces", json::array()); !workspaces.empty())
    view["workspace"] = workspaces.front();
  else
    view.erase("workspaces");
  if (view.contains("ports")) {
    for (auto& port : view["ports"]) port = port_text(port, "->");
  }
  if (view.contains("uptime_ms")) view["uptime"] = store::describe_duration(view["uptime_ms"].get<std::int64_t>());
  const json daemon = SBX_TRY(client.call("GET", "/v1/daemon"), "inspecting the daemon");
  view["daemon_version"] = daemon.value("version", "");
  view["daemon_uptime"] = store::describe_duration(daemon.value("uptime_ms", std::int64_t{0}));
  if (as_json) {
    print_json(view);
    return 0;
  }
  std::vector<std::vector<std::string>> table;
  for (const auto& [key, value] : view.items())
    table.push_back({key + ":", value.is_string() ? value.get<std::string>() : value.dump()});
  std::cout << format_table(table);
  return 0;
}

Result<int> stop(const ApiClient& client, const std::vector<std::string>& names) {
  int status = 0;
  for (const auto& name : names) {
    auto done = client.call("POST", sandbox_target(name) + "/stop", json::object());
    if (done) {
      std::cout << "Sandbox '" << name << "' stopped (state preserved)\n";
    } else {
      std::cerr << "ERROR: " << done.error().message << "\n";
      status = 1;
    }
  }
  return status;
}

Result<int> remove(const ApiClient& client, const RemoveOptions& options) {
  std::vector<std::string> names = options.names;
  if (options.all) {
    const json answer = SBX_TRY(client.call("GET", "/v1/sandboxes"), "listing the sandboxes");
    for (const auto& entry : answer.value("sandboxes", json::array())) names.push_back(entry.value("name", ""));
  } else if (names.empty()) {
    return fail(ErrorCode::kInvalid, "name at least one sandbox, or pass --all");
  }
  if (names.empty()) return 0;
  std::map<std::string, json> clones;
  for (const auto& name : names) {
    auto sandbox = client.call("GET", sandbox_target(name));
    if (sandbox && sandbox->contains("clone")) clones[name] = std::move(*sandbox);
  }
  for (const auto& [name, sandbox] : clones) {
    if (options.force && sandbox.value("status", "") != "running") {
      std::cerr << "WARNING: sandbox '" << name
                << "' does not run and was not asked for work that is not on this host\n";
      continue;
    }
    for (const auto& line : unsaved_work(client, sandbox)) std::cerr << "WARNING: " << line << "\n";
  }
  if (!options.force) {
    std::string list;
    for (const auto& name : names) list += (list.empty() ? "" : ", ") + name;
    SBX_CHECK(confirm("Remove " + list + " and everything in it?"), "asking");
  }
  int status = 0;
  for (const auto& name : names) {
    auto done = client.call("DELETE", sandbox_target(name) + (options.force ? "?force=1" : ""));
    if (done) {
      if (clones.contains(name)) remove_clone_remote(clones[name]);
      std::cout << "Sandbox '" << name << "' removed\n";
    } else {
      std::cerr << "ERROR: " << done.error().message << "\n";
      status = 1;
    }
  }
  return status;
}

Result<int> prune(const ApiClient& client, const PruneOptions& options) {
  json body = {{"dry_run", options.dry_run}};
  for (const auto& filter : options.filters) {
    const auto equals = filter.find('=');
    const std::string key = filter.substr(0, equals);
    const std::string value = equals == std::string::npos ? "" : filter.substr(equals + 1);
    if (key != "until" && key != "since") return fail(ErrorCode::kInvalid, "--filter knows until=TIME only");
    if (!value.empty() && value.find_first_not_of("0123456789") == std::string::npos)
      body["until_ms"] = std::strtoll(value.c_str(), nullptr, 10) * 1000;
    else if (auto time = store::parse_rfc3339(value); time)
      body["until_ms"] = *time;
    else
      body["until_ms"] = store::now_ms() - SBX_TRY(store::parse_duration(value), "reading --filter");
  }
  if (!options.dry_run && !options.force) {
    if (::isatty(0) == 0) return fail(ErrorCode::kInvalid, "stdin is not a terminal; use --force");
    SBX_CHECK(confirm("Remove all stopped sandboxes?"), "asking");
  }
  const json before = SBX_TRY(client.call("GET", "/v1/sandboxes"), "listing the sandboxes");
  const json answer = SBX_TRY(client.call("POST", "/v1/prune", body), "pruning");
  for (const auto& sandbox : before.value("sandboxes", json::array())) {
    const json gone = answer.value("removed", json::array());
    if (!options.dry_run && std::find(gone.begin(), gone.end(), json(sandbox.value("name", ""))) != gone.end())
      remove_clone_remote(sandbox);
  }
  if (options.json) {
    print_json(answer);
    return 0;
  }
  const json removed = answer.value("removed", json::array());
  for (const auto& name : removed)
    std::cout << (options.dry_run ? "Would remove " : "Removed ") << name.get<std::string>() << "\n";
  if (removed.empty()) std::cout << "Nothing to prune\n";
  return 0;
}

}  // namespace sbx::cli
