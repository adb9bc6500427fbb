// One function per command of the CLI, with its options as plain values; command_line.cpp fills them in. Each returns
// the exit status, or an Error that main prints.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "cli/api_client.h"

namespace sbx::cli {

struct CreateOptions {
  std::string agent;
  std::vector<std::string> paths;
  std::string name, memory, image, auto_stop;
  long cpus = 0;
  std::vector<std::string> env, env_files, labels;
  std::vector<std::string> allow_network, deny_network, profiles, ports;
  std::vector<std::string> protect, hide;
  std::string protect_mode;
  bool quiet = false, clone = false, ssh_agent = false;
};
struct RunOptions {
  CreateOptions create;
  bool detached = false, cold = false;
  std::vector<std::string> agent_arguments;
};
struct ExecOptions {
  std::string sandbox, user, workdir, wait, logs, list;
  std::vector<std::string> env, env_files, command;
  bool interactive = false, tty = false, privileged = false, detach = false, follow = false, json = false;
};
struct ListOptions {
  bool json = false, quiet = false;
  std::vector<std::string> filters;
};
struct PruneOptions {
  bool dry_run = false, json = false, force = false;
  std::vector<std::string> filters;
};
struct PortsOptions {
  std::string sandbox;
  std::vector<std::string> publish, unpublish;
  bool json = false;
};
struct RemoveOptions {
  std::vector<std::string> names;
  bool all = false, force = false;
};

Result<int> create(const ApiClient&, const CreateOptions&);
Result<int> run_agent(const ApiClient&, const RunOptions&);
Result<int> exec(const ApiClient&, const ExecOptions&);
Result<int> list(const ApiClient&, const ListOptions&);
Result<int> inspect(const ApiClient&, const std::string& name, bool json);
Result<int> ports(const ApiClient&, const PortsOptions&);
Result<int> stop(const ApiClient&, const std::vector<std::string>& names);
Result<int> remove(const ApiClient&, const RemoveOptions&);
Result<int> prune(const ApiClient&, const PruneOptions&);
Result<int> mount(const ApiClient&, const std::string& sandbox, const std::string& workspace);
Result<int> umount(const ApiClient&, const std::string& sandbox, const std::string& target, bool force);
Result<int> copy(const ApiClient&, const std::string& source, const std::string& destination, bool follow_links);

// `policy`: the preset of a new installation; "" leaves it to the first sandbox.
Result<int> daemon_start(const ApiClient&, bool detach, const std::string& policy = "");
Result<int> daemon_stop(const ApiClient&);
Result<int> daemon_status(const ApiClient&, bool json);
// `format`: "" for people, "json" or "github-issue".
Result<int> diagnose(const ApiClient&, const std::string& format);
Result<int> reset(const ApiClient&, bool force, bool preserve_secrets);
Result<int> version(const ApiClient&, bool json, bool debug);
// `words`: the commands to complete, separated by blanks.
Result<int> completion(const std::string& shell, const std::string& words);
Result<int> image_list(const ApiClient&, bool json, bool quiet);
Result<int> image_build(const ApiClient&, bool json);
Result<int> template_list(const ApiClient&, bool json, bool quiet);
Result<int> remove_artifacts(const ApiClient&, const std::string& kind, const std::vector<std::string>& ids);

// Shared by the commands.
// One of the API's ports, as "127.0.0.1:8080->3000/tcp".
std::string port_text(const nlohmann::json& port, const std::string& arrow, const std::string& suffix = "");
void print_json(const nlohmann::json& value);
// kInvalid when stdin is no terminal; a "no" is kInvalid too.
Result<void> confirm(const std::string& question);
ApiClient::Progress to_stderr(bool quiet);
// Creates; prints nothing but progress.
Result<nlohmann::json> create_sandbox(const ApiClient&, const CreateOptions&);
std::string sandbox_target(const std::string& name);
// {"ssh_agent": $SSH_AUTH_SOCK}, or {} without one.
nlohmann::json ssh_agent_member();

}  // namespace sbx::cli
