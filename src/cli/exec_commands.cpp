#include <fcntl.h>
#include <unistd.h>

#include <filesystem>
#include <iostream>
#include <map>

#include "base/file.h"
#include "cli/attach.h"
#include "cli/clone_remote.h"
#include "cli/commands.h"
#include "cli/table.h"
#include "cli/units.h"
#include "cli/workspace_argument.h"
#include "sandbox/agents.h"
#include "wire/stdcopy.h"

namespace sbx::cli {

using nlohmann::json;

namespace {

// Our stdin if the command may have it: open, and not a terminal whose foreground belongs to somebody else (reading it
// would stop us).
int usable_stdin() {
  if (::fcntl(0, F_GETFD) < 0) return -1;
  if (::isatty(0) != 0 && ::tcgetpgrp(0) != ::getpgrp()) return -1;
  return 0;
}

json command_body(const std::vector<std::string>& argv, bool tty) {
  json body = {{"argv", argv}, {"tty", tty}};
  body.update(ssh_agent_member());
  if (tty) {
    if (const json size = terminal_size(); !size.is_null()) body.update(size);
  }
  return body;
}

Result<int> print_logs(const ApiClient& client, const std::string& id, bool follow) {
  wire::StdcopyReader reader([](wire::StdStream stream, std::string_view data) {
    if (stream != wire::StdStream::kStatus) (void)write_all(static_cast<int>(stream), data);
  });
  SBX_CHECK(client.stream("/v1/execs/" + percent_encode(id) + "/logs?follow=" + (follow ? "1" : "0"),
                          [&](std::string_view data) { return reader.feed(data); }),
            "reading the output");
  return 0;
}

Result<int> print_execs(const ApiClient& client, const ExecOptions& options) {
  const json answer = SBX_TRY(client.call("GET", sandbox_target(options.list) + "/execs"), "listing commands");
  if (options.json) {
    print_json(answer);
    return 0;
  }
  std::vector<std::vector<std::string>> table = {{"ID", "STATUS", "STARTED", "COMMAND"}};
  for (const auto& entry : answer.value("execs", json::array())) {
    std::string command;
    for (const auto& word : entry.value("argv", json::array()))
      command += (command.empty() ? "" : " ") + word.get<std::string>();
    std::string status = "running";
    const json ended = entry.value("status", json());
    if (ended.is_object())
      status = ended.contains("signal") ? "signal " + ended["signal"].dump()
                                        : "exit " + ended.value("exit_code", json(0)).dump();
    table.push_back({entry.value("id", ""), status, entry.value("started_at", ""), command.substr(0, 60)});
  }
  std::cout << format_table(table);
  return 0;
}

// Source and target of what a sandbox was created with; of a clone the source is the repository, wherever in it the
// user is.
json created_with(const json& entry) {
  json mounts = json::array();
  for (const auto& mount : entry.value("mounts", json::array())) {
    const std::string target = mount.value("target", "");
    if (mount.value("late", false) || target == kCloneCommon) continue;
    const bool cloned = entry.contains("clone") && target == kCloneSource;
    mounts.push_back({mount.value("source", ""), cloned ? entry["clone"].value("path", "") : target});
  }
  return mounts;
}

// The sandbox that `run` re-attaches to: the one named, else the one of this agent and these workspaces (with a clone
// of the first or without, rather as asked for). null if none.
Result<json> existing_sandbox(const ApiClient& client, const RunOptions& options) {
  const json answer = SBX_TRY(client.call("GET", "/v1/sandboxes"), "listing the sandboxes");
  const auto& create = options.create;
  json wanted = json::array();
  for (const auto& path : create.paths) {
    const auto argument = SBX_TRY(parse_workspace_argument(path), "reading the workspaces");
    wanted.push_back({argument.source, argument.target});
    if (!create.clone || wanted.size() > 1) continue;
    const auto repository = SBX_TRY(host_repository(argument.source), "looking for the repository");
    wanted[0] = {repository.root, argument.target == argument.source ? repository.root : argument.target};
  }
  json other;
  for (const auto& entry : answer.value("sandboxes", json::array())) {
    if (!create.name.empty() ? entry.value("name", "") == create.name
                             : entry.value("agent", "") == create.agent && created_with(entry) == wanted) {
      if (entry.contains("clone") == create.clone) return entry;
      if (other.is_null()) other = entry;
    }
  }
  return other;
}

}  // namespace

Result<int> exec(const ApiClient& client, const ExecOptions& options) {
  if (!options.list.empty()) return print_execs(client, options);
  if (!options.wait.empty()) {
    const json status = SBX_TRY(client.call("GET", "/v1/execs/" + percent_encode(options.wait) + "/wait"), "waiting");
    return exit_status(status);
  }
  if (!options.logs.empty()) return print_logs(client, options.logs, options.follow);
  if (options.sandbox.empty() || options.command.empty())
    return fail(ErrorCode::kInvalid, "usage: sbx exec [flags] SANDBOX COMMAND [ARG...]");
  AttachOptions attached;
  attached.command = command_body(options.command, options.tty);
  attached.command["env"] = SBX_TRY(read_environment(options.env_files, options.env), "reading the environment");
  attached.command["user"] = options.user;
  attached.command["cwd"] = options.workdir;
  attached.command["privileged"] = options.privileged;
  if (options.detach) {
    const json started =
        SBX_TRY(client.call("POST", sandbox_target(options.sandbox) + "/execs", attached.command, to_stderr(false)),
                "running a command");
    std::cout << started.value("id", "") << "\n";
    return 0;
  }
  attached.stdin_fd = usable_stdin();
  attached.raw_terminal = options.tty && attached.stdin_fd == 0 && ::isatty(0) != 0;
  return attach(client, options.sandbox, std::move(attached));
}

Result<int> run_agent(const ApiClient& client, const RunOptions& wanted) {
  RunOptions options = wanted;
  auto& create = options.create;
  std::string agent = create.agent;
  if (!agent.empty() && sbx::sandbox::find_agent(agent) == nullptr && create.paths.empty() && create.name.empty()) {
    std::cerr << "`sbx run NAME` is deprecated; use `sbx run --name NAME` instead\n";
    create.name = agent;
    create.agent.clear();
  }
  if (create.name.empty() && create.agent.empty()) create.agent = "shell";
  if (create.clone && create.paths.empty() && create.name.empty())
    return fail(ErrorCode::kInvalid, "--clone requires the path of a Git repository");
  if (create.paths.empty() && !create.agent.empty()) create.paths.push_back(std::filesystem::current_path().native());
  json sandbox = SBX_TRY(existing_sandbox(client, options), "looking for the sandbox");
  const bool exists = !sandbox.is_null();
  if (exists) {
    if (!create.agent.empty() && sandbox.value("agent", "") != create.agent) {
      return fail(ErrorCode::kConflict, "sandbox '" + create.name + "' was made for agent \"" +
                                            sandbox.value("agent", "") + "\", not \"" + create.agent + "\"");
    }
    for (const auto& [flag, given] :
         {std::pair{"--memory", !create.memory.empty()}, std::pair{"--cpus", create.cpus != 0},
          std::pair{"--template", !create.image.empty()}, std::pair{"--label", !create.labels.empty()},
          std::pair{"--auto-stop", !create.auto_stop.empty()},
          std::pair{"--allow-network", !create.allow_network.empty()},
          std::pair{"--deny-network", !create.deny_network.empty()}, std::pair{"--profile", !create.profiles.empty()},
          std::pair{"--ssh-agent", create.ssh_agent}, std::pair{"--protect", !create.protect.empty()},
          std::pair{"--protect-mode", !create.protect_mode.empty()}, std::pair{"--hide", !create.hide.empty()}}) {
      if (given) return fail(ErrorCode::kInvalid, std::string(flag) + " can only be used when creating a new sandbox");
    }
    if (create.clone && !sandbox.contains("clone")) {
      return fail(ErrorCode::kInvalid, "--clone can only be used when creating a new sandbox, and '" +
                                           sandbox.value("name", "") +
                                           "' works on the workspace itself; 'sbx rm' it, or "
                                           "choose another --name");
    }
    if (!create.ports.empty()) {
      std::cerr << "WARNING: --publish is ignored for a sandbox that exists; 'sbx ports " << sandbox.value("name", "")
                << " --publish " << create.ports.front() << "' publishes it\n";
    }
    json start = {{"cold", options.cold}};
    start.update(ssh_agent_member());
    const json answer =
        SBX_TRY(client.call("POST", sandbox_target(sandbox.value("name", "")) + "/start", start, to_stderr(false)),
                "starting the sandbox");
    if (answer.value("started", false))
      std::cerr << "Sandbox " << sandbox.value("name", "") << " started successfully\n";
    if (const auto done = set_clone_remote(client, sandbox); !done)
      std::cerr << "WARNING: " << done.error().message << "\n";
  } else {
    if (create.agent.empty()) return fail(ErrorCode::kNotFound, "sandbox '" + create.name + "' not found");
    if (options.cold) return fail(ErrorCode::kInvalid, "--cold is for a stopped sandbox; this one would be new");
    sandbox = SBX_TRY(create_sandbox(client, create), "creating a sandbox");
  }
  if (options.detached) {
    std::cout << sandbox.value("id", "") << "\n";
    return 0;
  }
  const auto* known = sbx::sandbox::find_agent(sandbox.value("agent", "shell"));
  if (known == nullptr)
    return fail(ErrorCode::kInvalid, "this sbx does not know agent \"" + sandbox.value("agent", "") + "\"");
  const auto argv = sbx::sandbox::agent_command(*known, options.agent_arguments);
  AttachOptions attached;
  const bool tty = ::isatty(0) != 0 && ::isatty(1) != 0;
  attached.command = command_body(argv, tty);
  if (exists)
    attached.command["env"] = SBX_TRY(read_environment(create.env_files, create.env), "reading the environment");
  attached.stdin_fd = usable_stdin();
  attached.raw_terminal = tty && attached.stdin_fd == 0;
  auto status = attach(client, sandbox.value("name", ""), std::move(attached));
  if (status && *status == 127)
    std::cerr << "The image has no program for agent \"" << sandbox.value("agent", "")
              << "\"; install it in the sandbox, or use agent shell\n";
  return status;
}

}  // namespace sbx::cli
