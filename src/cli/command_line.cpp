#include "cli/command_line.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <iostream>
#include <memory>
#include <set>

#include "cli/changes_command.h"
#include "cli/clone_remote.h"
#include "cli/command_groups.h"
#include "cli/units.h"

namespace sbx::cli {
namespace {

// Flags of the reference that this version does not have: refused in words, never ignored.
void refuse_flags(CLI::App* command, const std::vector<std::string>& flags) {
  for (const auto& flag : flags) {
    command
        ->add_option_function<std::vector<std::string>>(
            flag, [flag](const std::vector<std::string>&) { throw CLI::ValidationError(flag, "is not built yet"); })
        ->expected(0, 1)
        ->group("");
  }
}

void add_create_options(CLI::App* command, CreateOptions& o) {
  command->add_option("--name", o.name, "name (default: <agent>-<workspace>)");
  command->add_option("-t,--template", o.image, "image to start from (sbx image ls)");
  command->add_option("--cpus", o.cpus, "virtual CPUs (0: the default)");
  command->add_option("-m,--memory", o.memory, "memory, such as 512m or 8g");
  command->add_option("-e,--env", o.env, "KEY=VALUE, or KEY for the host's value")->allow_extra_args(false);
  command->add_option("--env-file", o.env_files, "file of KEY=VALUE lines")->allow_extra_args(false);
  command->add_option("--label", o.labels, "KEY=VALUE")->allow_extra_args(false);
  command->add_option("--auto-stop", o.auto_stop, "stop after this long without a session (default 30s), or off");
  command->add_option("--allow-network", o.allow_network, "destinations that this sandbox may reach too")
      ->allow_extra_args(false);
  command->add_option("--deny-network", o.deny_network, "destinations that this sandbox must not reach")
      ->allow_extra_args(false);
  command->add_option("--profile", o.profiles, "named set of network rules (sbx policy profile)")
      ->allow_extra_args(false);
  command
      ->add_option("--protect", o.protect, "paths whose changes are reported, beside the default ones (!PATTERN: not)")
      ->allow_extra_args(false);
  command->add_option("--hide", o.hide, "paths that the sandbox does not see, such as .env")->allow_extra_args(false);
  command->add_option("--protect-mode", o.protect_mode, "report (default), or deny: refuse changes of protected paths")
      ->check(CLI::IsMember({"report", "deny"}));
  command->add_option("-p,--publish", o.ports, "port to publish: [[HOST_IP:]HOST_PORT:]SANDBOX_PORT[/PROTOCOL]")
      ->allow_extra_args(false);
  command->add_flag("--ssh-agent", o.ssh_agent, "forward your SSH agent ($SSH_AUTH_SOCK): it lists keys and signs");
  command->add_flag("--clone", o.clone, "work on a clone of the repository at PATH, on the sandbox's own disk");
  refuse_flags(command, {"--kit", "--kit-arg", "--kit-args-file", "--static-mcp", "--skills", "--pull", "--gpu"});
}

}  // namespace

CommandLine parse_command_line(const std::vector<std::string>& all) {
  CommandLine result;
  const auto [words, command] = split_command(all);
  CLI::App app("microVM sandboxes for coding agents", "sbx");
  app.fallthrough();
  app.set_help_flag("-h,--help", "help");
  bool cloud = false;
  std::string cloud_url;
  app.add_flag("-D,--debug", result.debug, "debug logging");
  app.add_option("--app-name", result.app_name)->group("");
  app.add_flag("--cloud", cloud, "not available: sandboxes run on this machine")->group("");
  app.add_option("--cloud-api-url", cloud_url)->group("");
  // Options outlive parsing inside the action that captures them.
  const auto on = [&](CLI::App* sub, Action action) {
    sub->callback([&result, action = std::move(action)] { result.action = action; });
  };

  auto c = std::make_shared<CreateOptions>();
  auto* create_command = app.add_subcommand("create", "create a sandbox without attaching");
  create_command->add_option("AGENT", c->agent, "agent, such as shell or claude")->required();
  create_command->add_option("PATH", c->paths, "workspaces, SRC[:DST][:ro]: DST is where, :ro read-only");
  create_command->add_flag("-q,--quiet", c->quiet, "print the name only");
  add_create_options(create_command, *c);
  on(create_command, [c](const ApiClient& client) { return create(client, *c); });

  auto r = std::make_shared<RunOptions>();
  r->agent_arguments = command;
  auto* run_command = app.add_subcommand("run", "create a sandbox if needed and attach to its agent");
  run_command->add_option("AGENT", r->create.agent, "agent");
  run_command->add_option("PATH", r->create.paths, "workspaces, SRC[:DST][:ro] (default: the current folder)");
  run_command->add_flag("-d,--detached", r->detached, "print the sandbox's id and return");
  run_command->add_flag("--cold", r->cold, "boot a stopped sandbox from its disk, forgetting the memory kept by stop");
  add_create_options(run_command, r->create);
  on(run_command, [r](const ApiClient& client) { return run_agent(client, *r); });

  auto e = std::make_shared<ExecOptions>();
  e->command = command;
  auto* exec_command = app.add_subcommand("exec", "run a command in a sandbox");
  exec_command->add_option("SANDBOX", e->sandbox, "sandbox; followed by COMMAND [ARG...]");
  exec_command->add_flag("-i,--interactive", e->interactive, "pass stdin (always done)");
  exec_command->add_flag("-t,--tty", e->tty, "with a terminal");
  exec_command->add_flag("-d,--detach", e->detach, "print the command's id and return");
  exec_command->add_flag("--privileged", e->privileged, "with all capabilities");
  exec_command->add_flag("--follow", e->follow, "with --logs: go on to the command's end");
  exec_command->add_flag("--json", e->json, "with --list");
  exec_command->add_option("-e,--env", e->env, "KEY=VALUE, or KEY for the host's value")->allow_extra_args(false);
  exec_command->add_option("--env-file", e->env_files, "file of KEY=VALUE lines")->allow_extra_args(false);
  exec_command->add_option("-u,--user", e->user, "NAME|UID[:GROUP|GID]");
  exec_command->add_option("-w,--workdir", e->workdir, "folder to start in");
  exec_command->add_option("--list", e->list, "list the commands of this sandbox");
  exec_command->add_option("--wait", e->wait, "wait for the command with this id; its status is ours");
  exec_command->add_option("--logs", e->logs, "output of the command with this id");
  on(exec_command, [e](const ApiClient& client) { return exec(client, *e); });

  auto l = std::make_shared<ListOptions>();
  auto* list_command = app.add_subcommand("ls", "list sandboxes");
  list_command->add_flag("--json", l->json, "as JSON");
  list_command->add_flag("-q,--quiet", l->quiet, "names only");
  list_command->add_option("--filter", l->filters, "label=KEY[=VALUE]")->allow_extra_args(false);
  on(list_command, [l](const ApiClient& client) { return list(client, *l); });

  auto ch = std::make_shared<ChangesOptions>();
  auto* changes_command = app.add_subcommand("changes", "what a sandbox has changed in its workspaces");
  changes_command->add_option("SANDBOX", ch->name)->required();
  changes_command->add_flag("--json", ch->json, "as JSON");
  changes_command->add_flag("--diff", ch->diff, "with the differences");
  on(changes_command, [ch](const ApiClient& client) { return changes(client, *ch); });

  auto name = std::make_shared<std::string>();
  auto names = std::make_shared<std::vector<std::string>>();
  auto json = std::make_shared<bool>(false);
  auto quiet = std::make_shared<bool>(false);
  auto force = std::make_shared<bool>(false);
  auto* inspect_command = app.add_subcommand("inspect", "everything about a sandbox");
  inspect_command->add_option("SANDBOX", *name)->required();
  inspect_command->add_flag("--json", *json, "as JSON");
  on(inspect_command, [name, json](const ApiClient& client) { return inspect(client, *name, *json); });

  auto o = std::make_shared<PortsOptions>();
  auto* ports_command = app.add_subcommand("ports", "published ports of a sandbox");
  ports_command->add_option("SANDBOX", o->sandbox)->required();
  ports_command
      ->add_option("--publish", o->publish, "[[HOST_IP:]HOST_PORT:]SANDBOX_PORT[/PROTOCOL]; on the loopback by default")
      ->allow_extra_args(false);
  ports_command->add_option("--unpublish", o->unpublish, "the same, or SANDBOX_PORT for all of its mappings")
      ->allow_extra_args(false);
  ports_command->add_flag("--json", o->json, "as JSON");
  on(ports_command, [o](const ApiClient& client) { return ports(client, *o); });

  auto* stop_command = app.add_subcommand("stop", "stop sandboxes; their state is kept");
  stop_command->add_option("SANDBOX", *names)->required();
  on(stop_command, [names](const ApiClient& client) { return stop(client, *names); });

  auto rm = std::make_shared<RemoveOptions>();
  auto* remove_command = app.add_subcommand("rm", "remove sandboxes and everything in them");
  remove_command->add_option("SANDBOX", rm->names);
  remove_command->add_flag("--all", rm->all, "all of them");
  remove_command->add_flag("-f,--force", rm->force, "do not ask; also with sessions attached");
  on(remove_command, [rm](const ApiClient& client) { return remove(client, *rm); });

  auto p = std::make_shared<PruneOptions>();
  auto* prune_command = app.add_subcommand("prune", "remove stopped sandboxes");
  prune_command->add_flag("--dry-run", p->dry_run, "only say which");
  prune_command->add_flag("--json", p->json, "as JSON");
  prune_command->add_flag("-f,--force", p->force, "do not ask");
  prune_command->add_option("--filter", p->filters, "until=TIME: stopped before (RFC 3339, Unix seconds, or 168h)")
      ->allow_extra_args(false);
  on(prune_command, [p](const ApiClient& client) { return prune(client, *p); });

  auto mounted = std::make_shared<std::pair<std::string, std::string>>();
  auto* mount_command = app.add_subcommand("mount", "mount a folder of the host into a sandbox, running or not");
  mount_command->add_option("SANDBOX", mounted->first, "its name")->required();
  mount_command->add_option("SRC[:DST][:ro]", mounted->second, "the folder, where in the sandbox, read-only")
      ->required();
  on(mount_command, [mounted](const ApiClient& client) { return mount(client, mounted->first, mounted->second); });
  auto* umount_command = app.add_subcommand("umount", "take a mounted folder away from a sandbox");
  umount_command->add_option("SANDBOX", mounted->first, "its name")->required();
  umount_command->add_option("DST", mounted->second, "where it is in the sandbox")->required();
  umount_command->add_flag("-f,--force", *force, "also while something in the sandbox uses it");
  on(umount_command,
     [mounted, force](const ApiClient& client) { return umount(client, mounted->first, mounted->second, *force); });

  auto sides = std::make_shared<std::pair<std::string, std::string>>();
  auto follow = std::make_shared<bool>(false);
  auto* copy_command = app.add_subcommand("cp", "copy files between a sandbox and the host");
  copy_command->add_option("SRC", sides->first, "PATH or SANDBOX:PATH; - is a tar archive on stdin")->required();
  copy_command->add_option("DST", sides->second, "PATH or SANDBOX:PATH; - is a tar archive on stdout")->required();
  copy_command->add_flag("-L,--follow-link", *follow, "copy what SRC points to, if it is a link");
  on(copy_command,
     [sides, follow](const ApiClient& client) { return copy(client, sides->first, sides->second, *follow); });

  // Run by git, for the remote of a sandbox in clone mode.
  auto* upload_command = app.add_subcommand("git-upload-pack", "what `git fetch sandbox-NAME` talks to")->group("");
  upload_command->add_option("SANDBOX", *name)->required();
  upload_command->add_option("URL", sides->first);
  on(upload_command, [name](const ApiClient& client) { return serve_upload_pack(client, *name); });

  auto* version_command = app.add_subcommand("version", "version of sbx");
  version_command->add_flag("--json", *json, "as JSON");
  auto debug = std::make_shared<bool>(false);
  on(version_command, [json, debug](const ApiClient& client) { return version(client, *json, *debug); });

  auto* daemon = app.add_subcommand("daemon", "the background process");
  auto detach = std::make_shared<bool>(false);
  auto* start_command = daemon->add_subcommand("start", "run the daemon, in the foreground");
  start_command->add_flag("-d,--detach", *detach, "in the background");
  auto preset = std::make_shared<std::string>();
  start_command->add_option("--policy", *preset, "network policy of a new installation")
      ->check(CLI::IsMember({"allow-all", "balanced", "deny-all"}));
  on(start_command, [detach, preset](const ApiClient& client) { return daemon_start(client, *detach, *preset); });
  on(daemon->add_subcommand("stop", "end the daemon; sandboxes go on"),
     [](const ApiClient& client) { return daemon_stop(client); });
  auto* status_command = daemon->add_subcommand("status", "is it running, and where");
  status_command->add_flag("--json", *json, "as JSON");
  on(status_command, [json](const ApiClient& client) { return daemon_status(client, *json); });
  on(daemon->add_subcommand("restart", "stop and start"), [](const ApiClient& client) -> Result<int> {
    SBX_TRY(daemon_stop(client), "stopping the daemon");
    return daemon_start(client, true);
  });

  auto format = std::make_shared<std::string>();
  auto* diagnose_command = app.add_subcommand("diagnose", "check this host");
  diagnose_command->add_flag("--json", *json, "as JSON");
  diagnose_command->add_option("-o,--output", *format, "json or github-issue")
      ->check(CLI::IsMember({"json", "github-issue"}));
  refuse_flags(diagnose_command, {"--upload"});
  on(diagnose_command, [json, format](const ApiClient& client) { return diagnose(client, *json ? "json" : *format); });

  auto* reset_command = app.add_subcommand("reset", "remove everything and stop the daemon");
  reset_command->add_flag("-f,--force", *force, "do not ask");
  auto preserve = std::make_shared<bool>(false);
  reset_command->add_flag("--preserve-secrets", *preserve, "keep the secrets that are not a sandbox's own");
  on(reset_command, [force, preserve](const ApiClient& client) { return reset(client, *force, *preserve); });

  // Taken and ignored, so that scripts go on working.
  auto ignored = std::make_shared<std::pair<std::string, bool>>();
  auto* login_command = app.add_subcommand("login", "nothing to do: sbx needs no account");
  login_command->add_option("-u,--username", ignored->first, "ignored");
  login_command->add_flag("--password-stdin", ignored->second, "ignored");
  auto* logout_command = app.add_subcommand("logout", "nothing to do: sbx needs no account");
  logout_command->add_flag("-y,--yes", ignored->second, "ignored");
  for (auto* nothing : {login_command, logout_command}) {
    on(nothing, [ignored](const ApiClient&) -> Result<int> {
      std::cout << "sbx needs no account; there is nothing to do\n";
      return 0;
    });
  }
  auto words_to_complete = std::make_shared<std::string>();
  auto* completion_command = app.add_subcommand("completion", "completion script for bash, zsh, fish or powershell");
  completion_command->add_option("SHELL", *name)->required();
  on(completion_command, [name, words_to_complete](const ApiClient&) { return completion(*name, *words_to_complete); });

  add_policy_commands(app, on);
  add_secret_commands(app, on);

  for (const std::string kind : {"image", "template"}) {
    auto* group =
        app.add_subcommand(kind, kind == "image" ? "root images" : "booted templates that sandboxes are clones of");
    auto* ls = group->add_subcommand("ls", "list them");
    ls->add_flag("--json", *json, "as JSON");
    ls->add_flag("-q,--quiet", *quiet, "ids only");
    auto* rm_command = group->add_subcommand("rm", "remove unused ones");
    rm_command->add_option("ID", *names)->required();
    rm_command->add_flag("-f,--force", *force, "accepted; there is no question");
    on(rm_command, [kind, names](const ApiClient& client) { return remove_artifacts(client, kind, *names); });
    if (kind == "image") {
      on(ls, [json, quiet](const ApiClient& client) { return image_list(client, *json, *quiet); });
      auto* build = group->add_subcommand("build", "build the root image (minutes)");
      build->add_flag("--json", *json, "as JSON");
      on(build, [json](const ApiClient& client) { return image_build(client, *json); });
    } else {
      on(ls, [json, quiet](const ApiClient& client) { return template_list(client, *json, *quiet); });
    }
  }
  // Commands of the reference that this version lacks, whatever their arguments.
  static const std::set<std::string> kMissing = {"attach", "env",    "kit", "mcp", "move", "settings",
                                                 "setup",  "skills", "ssh", "ttl", "tui",  "volume"};
  const auto verb =
      std::find_if(words.begin() + 1, words.end(), [](const std::string& word) { return !word.starts_with('-'); });
  if (verb != words.end() && kMissing.contains(*verb)) {
    result.action = [word = *verb](const ApiClient&) -> Result<int> {
      return fail(ErrorCode::kInvalid, "'sbx " + word + "' is not built yet");
    };
    return result;
  }

  for (const auto* sub : app.get_subcommands({}))
    *words_to_complete += (words_to_complete->empty() ? "" : " ") + sub->get_name();
  result.json = std::ranges::find(words, "--json") != words.end();
  if (verb != words.end() && *verb == "exec") result.failure = 125;
  try {
    std::vector<std::string> reversed(words.rbegin(), words.rend() - 1);
    app.parse(reversed);
    for (const auto* group : app.get_subcommands()) {
      if (group->get_subcommands({}).empty() || !group->get_subcommands().empty()) continue;
      std::cout << group->help();
      result.exit_status = 0;
      return result;
    }
    if (app.get_subcommands().empty()) {
      std::cerr << app.help();
      result.action = [](const ApiClient&) -> Result<int> {
        return fail(ErrorCode::kInvalid, "name a command; the interactive interface is not built yet");
      };
    }
  } catch (const CLI::CallForHelp&) {
    result.exit_status = app.exit(CLI::CallForHelp());
    return result;
  } catch (const CLI::ParseError& error) {
    const std::string message = error.what();
    result.action = [message](const ApiClient&) -> Result<int> { return fail(ErrorCode::kInvalid, message); };
  }
  if (cloud || !cloud_url.empty()) {
    result.action = [](const ApiClient&) -> Result<int> {
      return fail(ErrorCode::kInvalid, "--cloud is not available: sbx runs sandboxes on this machine only");
    };
  }
  *debug = result.debug;
  return result;
}

}  // namespace sbx::cli
