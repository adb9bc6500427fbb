#include <fcntl.h>
#include <poll.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <filesystem>
#include <iostream>

#include "base/command.h"
#include "cli/clone_remote.h"
#include "cli/commands.h"
#include "cli/table.h"

namespace sbx::cli {

using nlohmann::json;

namespace {

std::filesystem::path own_program() { return std::filesystem::read_symlink("/proc/self/exe"); }

Result<json> running_daemon(const ApiClient& client) {
  ApiClient quiet = client;
  quiet.start_daemon = false;
  return quiet.call("GET", "/v1/daemon");
}

// Returns when the process is gone, so that the next command starts a new one.
Result<void> end_daemon(const ApiClient& client, const json& daemon) {
  const UniqueFd process(static_cast<int>(::syscall(SYS_pidfd_open, daemon.value("pid", 0), 0)));
  SBX_TRY(client.call("POST", "/v1/daemon/stop", json::object()), "asking the daemon to end");
  pollfd ended{process.get(), POLLIN, 0};
  if (process.valid() && ::poll(&ended, 1, 15'000) == 0) return fail(ErrorCode::kTimeout, "the daemon does not end");
  return {};
}

std::string mark_of(const std::string& status) {
  return status == "pass" ? "✓" : status == "warn" ? "!" : status == "skip" ? "-" : "✗";
}

void print_checks(const json& checks) {
  for (const auto& check : checks) {
    std::cout << mark_of(check.value("status", "")) << " " << check.value("name", "") << ": "
              << check.value("message", "") << "\n";
    if (check.contains("hint")) std::cout << "  → " << check.value("hint", "") << "\n";
  }
}

}  // namespace

Result<int> daemon_start(const ApiClient& client, bool detach, const std::string& policy) {
  if (detach) {
    SBX_TRY(client.call("GET", "/v1/daemon"), "starting the daemon");
    if (!policy.empty()) {
      const json now = SBX_TRY(client.call("GET", "/v1/policy"), "reading the policy");
      if (now.value("initialized", false) && now.value("preset", "") != policy)
        return fail(ErrorCode::kConflict, "the network policy is initialised already (" + now.value("preset", "") +
                                              "); 'sbx policy reset' removes it with all its rules");
      if (!now.value("initialized", false))
        SBX_TRY(client.call("POST", "/v1/policy/init", {{"preset", policy}}), "initialising the policy");
    }
    return daemon_status(client, false);
  }
  if (running_daemon(client)) return fail(ErrorCode::kConflict, "the daemon is running already");
  const std::string program = own_program().parent_path() / "sbxd";
  std::vector<std::string> words = {"sbxd"};
  if (!client.app_name().empty()) words.insert(words.end(), {"--app-name", client.app_name()});
  if (!policy.empty()) words.insert(words.end(), {"--policy", policy});
  std::vector<char*> argv;
  for (auto& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  ::execv(program.c_str(), argv.data());
  return fail_errno("starting " + program, errno);
}

Result<int> daemon_stop(const ApiClient& client) {
  const auto daemon = running_daemon(client);
  if (!daemon) {
    std::cout << "The daemon is not running\n";
    return 0;
  }
  SBX_CHECK(end_daemon(client, *daemon), "stopping the daemon");
  std::cout << "Daemon stopped; sandboxes go on\n";
  return 0;
}

Result<int> daemon_status(const ApiClient& client, bool as_json) {
  const auto daemon = running_daemon(client);
  if (as_json) {
    json view = daemon ? *daemon
                       : json{{"socket", client.paths().daemon_socket().native()},
                              {"log", client.paths().daemon_log().native()}};
    view["status"] = daemon ? "running" : "stopped";
    print_json(view);
    return 0;
  }
  std::cout << "Status: " << (daemon ? "running" : "stopped") << "\nSocket: " << client.paths().daemon_socket().native()
            << "\nLogs: " << client.paths().daemon_log().native() << "\n";
  return 0;
}

Result<int> diagnose(const ApiClient& client, const std::string& format) {
  json checks = json::array();
  checks.push_back({{"name", "CLI binary"}, {"status", "pass"}, {"message", own_program().native()}});
  const auto daemon = client.call("GET", "/v1/daemon");
  checks.push_back({{"name", "Daemon"},
                    {"status", daemon ? "pass" : "fail"},
                    {"message", daemon ? "running" : daemon.error().message}});
  if (daemon) {
    const bool same = daemon->value("version", "") == SBX_VERSION;
    checks.push_back({{"name", "Version match"},
                      {"status", same ? "pass" : "warn"},
                      {"message", "daemon " + daemon->value("version", "") + ", CLI " SBX_VERSION}});
    if (!same) checks.back()["hint"] = "sbx daemon restart";
    const auto host = client.call("GET", "/v1/diagnose");
    if (host) {
      for (const auto& check : host->value("checks", json::array())) checks.push_back(check);
    } else {
      checks.push_back({{"name", "Daemon diagnostics"}, {"status", "fail"}, {"message", host.error().message}});
    }
  }
  json summary = {{"pass", 0}, {"warn", 0}, {"fail", 0}, {"skip", 0}};
  for (const auto& check : checks) {
    const std::string status = check.value("status", "skip");
    summary[status] = summary.value(status, 0) + 1;
  }
  if (format == "json") {
    print_json({{"version", "1.0"}, {"checks", checks}, {"summary", summary}});
  } else if (format == "github-issue") {
    std::cout << "### sbx diagnose\n\nsbx v" SBX_VERSION "\n\n```\n";
    print_checks(checks);
    std::cout << "```\n";
  } else {
    print_checks(checks);
  }
  return summary.value("fail", 0) == 0 ? 0 : 1;
}

Result<int> reset(const ApiClient& client, bool force, bool preserve_secrets) {
  if (!force)
    SBX_CHECK(confirm(preserve_secrets ? "Delete every sandbox, template and image?"
                                       : "Delete every sandbox, template, image and secret?"),
              "asking");
  const json before = SBX_TRY(client.call("GET", "/v1/sandboxes"), "listing the sandboxes");
  const json done = SBX_TRY(
      client.call("POST", "/v1/reset", json{{"preserve_secrets", preserve_secrets}}, to_stderr(false)), "resetting");
  for (const auto& sandbox : before.value("sandboxes", json::array())) remove_clone_remote(sandbox);
  const json daemon = SBX_TRY(running_daemon(client), "stopping the daemon");
  SBX_CHECK(end_daemon(client, daemon), "stopping the daemon");
  std::cout << "✓ Reset complete!\nSummary:\n  - " << done.value("sandboxes", 0) << " sandbox(es) removed\n  - "
            << done.value("templates", 0) << " template(s) removed\n  - " << done.value("images", 0)
            << " image(s) removed\n";
  if (!preserve_secrets) std::cout << "  - " << done.value("secrets", 0) << " secret(s) removed\n";
  return 0;
}

Result<int> version(const ApiClient& client, bool as_json, bool debug) {
  json view = {{"version", "v" SBX_VERSION}};
  if (debug || as_json) {
    if (const auto daemon = running_daemon(client); daemon) view["daemon_version"] = "v" + daemon->value("version", "");
  }
  if (as_json)
    print_json(view);
  else
    std::cout << "sbx version: v" SBX_VERSION "\n";
  if (debug && !as_json) std::cout << "daemon version: " << view.value("daemon_version", "not running") << "\n";
  return 0;
}

Result<int> completion(const std::string& shell, const std::string& words) {
  if (shell == "bash")
    std::cout << "complete -W '" << words << "' -o default sbx\n";
  else if (shell == "zsh")
    std::cout << "#compdef sbx\ncompadd " << words << "\n";
  else if (shell == "fish")
    std::cout << "complete -c sbx -n __fish_use_subcommand -a '" << words << "'\n";
  else if (shell == "powershell")
    std::cout << "Register-ArgumentCompleter -Native -CommandName sbx -ScriptBlock { param($w) '" << words
              << "'.Split(' ') | Where-Object { $_ -like \"$w*\" } }\n";
  else
    return fail(ErrorCode::kInvalid, "completion knows bash, zsh, fish and powershell");
  return 0;
}

Result<int> image_list(const ApiClient& client, bool as_json, bool quiet) {
  const json answer = SBX_TRY(client.call("GET", "/v1/images"), "listing the images");
  const json images = answer.value("images", json::array());
  if (as_json) {
    print_json(answer);
    return 0;
  }
  if (quiet) {
    for (const auto& entry : images) std::cout << entry.value("id", "") << "\n";
    return 0;
  }
  if (images.empty()) {
    std::cout << "No images found; make one with: sbx image build\n";
    return 0;
  }
  std::vector<std::vector<std::string>> table = {{"IMAGE", "SUITE", "KERNEL", "SIZE", "CREATED"}};
  for (const auto& entry : images)
    table.push_back({entry.value("id", ""), entry.value("suite", ""), entry.value("kernel", ""),
                     format_size(entry.value("size", 0ULL)), entry.value("created_at", "")});
  std::cout << format_table(table);
  return 0;
}

Result<int> image_build(const ApiClient& client, bool as_json) {
  const json made = SBX_TRY(client.call("POST", "/v1/images", json::object(), to_stderr(false)), "building the image");
  if (as_json)
    print_json(made);
  else
    std::cout << "✓ Image " << made.value("id", "") << " (" << format_size(made.value("size", 0ULL)) << ")\n";
  return 0;
}

Result<int> template_list(const ApiClient& client, bool as_json, bool quiet) {
  const json answer = SBX_TRY(client.call("GET", "/v1/templates"), "listing the templates");
  if (as_json) {
    print_json(answer);
    return 0;
  }
  const json templates = answer.value("templates", json::array());
  std::vector<std::vector<std::string>> table = {
      {"TEMPLATE", "IMAGE", "ACCELERATOR", "CPUS", "MEMORY", "SIZE", "CREATED"}};
  for (const auto& entry : templates) {
    if (quiet) std::cout << entry.value("id", "") << "\n";
    table.push_back({entry.value("id", ""), entry.value("image", ""), entry.value("accelerator", ""),
                     std::to_string(entry.value("cpus", 0)), std::to_string(entry.value("memory_mib", 0)) + " MiB",
                     format_size(entry.value("size", 0ULL)), entry.value("created_at", "")});
  }
  if (!quiet) std::cout << (templates.empty() ? "No templates found\n" : format_table(table));
  return 0;
}

Result<int> remove_artifacts(const ApiClient& client, const std::string& kind, const std::vector<std::string>& ids) {
  for (const auto& id : ids) {
    SBX_TRY(client.call("DELETE", "/v1/" + kind + "s/" + percent_encode(id)), "removing a " + kind);
    std::cout << "Deleted " << id << "\n";
  }
  return 0;
}

}  // namespace sbx::cli
