// create, run, ls, inspect, stop, rm, prune.
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <ctime>
#include <filesystem>

#include "cli/context.h"
#include "sandbox/agents.h"
#include "sandbox/names.h"

namespace sbx::cli {

namespace fs = std::filesystem;
using nlohmann::json;

namespace {

struct CreateOptions {
  std::vector<std::string> words;  // AGENT PATH...
  std::string name;
  std::string memory;
  std::string image;
  int cpus = 0;
  int auto_stop = -1;
  std::vector<std::string> env;
  std::vector<std::string> env_files;
  std::vector<std::string> labels;
  std::vector<std::string> unbuilt;
  bool clone = false;
  bool quiet = false;
  bool as_json = false;
  bool detached = false;
};

void add_create_options(CLI::App& command, CreateOptions& options) {
  command.add_option("AGENT_AND_PATHS", options.words, "Agent, then workspaces (PATH or PATH:ro)");
  command.add_option("--name", options.name, "Name of the sandbox (default <agent>-<workdir>)");
  command.add_option("-t,--template", options.image, "Root image (see 'sbx image ls')");
  command.add_option("--cpus", options.cpus, "Number of CPUs (0: automatic)");
  command.add_option("-m,--memory", options.memory, "Memory in binary units (512m, 8g)");
  command.add_flag("--clone", options.clone, "Work on a private clone of the repository (not built yet)");
  command.add_option("-e,--env", options.env, "Set an environment variable, kept with the sandbox")->take_all();
  command.add_option("--env-file", options.env_files, "Read environment variables from a file")->take_all();
  command.add_option("--label", options.labels, "Attach a label KEY=VALUE")->take_all();
  command.add_option("--auto-stop", options.auto_stop, "Seconds after the last session until it stops (0: never)");
  command.add_flag("--json", options.as_json, "Print the sandbox, or the error, as JSON");
  for (const char* name : {"-p,--publish", "--deny-network", "--kit", "--kit-arg", "--kit-args-file", "--static-mcp"}) {
    command.add_option_function<std::vector<std::string>>(
        name, [&options, name](const std::vector<std::string>&) { options.unbuilt.emplace_back(name); }, "Not built yet");
  }
  command.add_option_function<std::string>("--pull", [](const std::string&) {}, "Accepted: images are local");
  command.add_option_function<std::string>("--skills", [](const std::string&) {}, "Accepted: there are no shared skills");
}

bool is_agent(const std::string& word) { return sandbox::find_agent(word) != nullptr; }

Result<json> create_request(const CreateOptions& options, const std::string& agent, std::vector<std::string> paths) {
  if (!options.unbuilt.empty()) {
    return fail(ErrorCode::kInvalid, options.unbuilt.front() + " is not built yet; leave it out");
  }
  if (options.clone) return fail(ErrorCode::kInvalid, "--clone is not built yet; leave it out");
  json request = {{"agent", agent}};
  if (!options.name.empty()) request["name"] = options.name;
  if (options.cpus > 0) request["cpus"] = options.cpus;
  if (!options.memory.empty()) request["memory_mib"] = SBX_TRY(parse_memory(options.memory), "reading --memory");
  if (!options.image.empty()) request["image"] = options.image;
  if (options.auto_stop >= 0) request["auto_stop_s"] = options.auto_stop;
  std::vector<std::string> env;
  for (const auto& file : options.env_files) {
    for (auto& entry : SBX_TRY(read_env_file(file), "reading --env-file")) env.push_back(std::move(entry));
  }
  for (const auto& entry : options.env) add_env(env, entry);
  if (!env.empty()) request["env"] = env;
  for (const auto& label : options.labels) {
    const auto equals = label.find('=');
    request["labels"][label.substr(0, equals)] = equals == std::string::npos ? "" : label.substr(equals + 1);
  }
  request["workspaces"] = json::array();
  for (auto& path : paths) {
    const bool readonly = path.ends_with(":ro");
    if (readonly) path.resize(path.size() - 3);
    std::error_code error;
    const auto absolute = fs::absolute(path, error).lexically_normal();
    auto text = absolute.string();
    if (text.size() > 1 && text.ends_with('/')) text.pop_back();
    request["workspaces"].push_back({{"path", text}, {"readonly", readonly}});
  }
  return request;
}

int create(Context& context, const CreateOptions& options) {
  if (options.words.empty()) {
    return print_error({ErrorCode::kInvalid, "\"sbx create\" requires an agent: " + [] {
                          std::string names;
                          for (const auto& agent : sandbox::agents()) names += (names.empty() ? "" : ", ") + std::string(agent.name);
                          return names;
                        }(), {}}, options.as_json);
  }
  const auto request = create_request(options, options.words[0], {options.words.begin() + 1, options.words.end()});
  if (!request) return print_error(request.error(), options.as_json);
  auto made = context.client.call("POST", "/v1/sandboxes", *request,
                                  options.quiet ? [](const std::string&) {} : show_progress);
  if (!made) return print_error(made.error(), options.as_json);
  if (options.as_json) {
    std::cout << made->dump(2) << "\n";
    return 0;
  }
  if (options.quiet) return 0;
  std::cout << "✓ Created sandbox '" << made->value("name", "") << "'\n";
  for (const auto& workspace : made->value("workspaces", json::array())) {
    std::cout << "  Workspace: " << workspace.get<std::string>() << " (direct mount)\n";
  }
  std::cout << "  Agent: " << made->value("agent", "") << "\n";
  return 0;
}

// The sandbox that `run AGENT PATH` means: the one of that name, or the one with this agent and primary workspace.
Result<std::optional<json>> existing(Context& context, const CreateOptions& options, const std::string& agent,
                                     const std::string& workspace) {
  const auto answer = SBX_TRY(context.client.call("GET", "/v1/sandboxes"), "looking for the sandbox");
  for (const auto& entry : answer["sandboxes"]) {
    if (!options.name.empty()) {
      if (entry["name"] == options.name) return entry;
      continue;
    }
    const auto workspaces = entry.value("workspaces", json::array());
    if (entry["agent"] == agent && !workspaces.empty() && workspaces[0] == workspace) return entry;
  }
  return std::nullopt;
}

int attach_agent(Context& context, const json& sandbox) {
  const auto* agent = sandbox::find_agent(sandbox.value("agent", "shell"));
  if (agent == nullptr) return print_error({ErrorCode::kInvalid, "this sandbox's agent is not known to this version", {}});
  const bool tty = ::isatty(STDIN_FILENO) != 0 && ::isatty(STDOUT_FILENO) != 0;
  json request = {{"argv", sandbox::agent_command(*agent, context.rest)}, {"tty", tty}, {"stdin", true}};
  return attach_and_report(context, sandbox.value("name", ""), std::move(request), tty, 1);
}

int run(Context& context, CreateOptions& options) {
  auto words = options.words;
  std::string agent;
  if (!words.empty() && is_agent(words[0])) {
    agent = words[0];
    words.erase(words.begin());
  } else if (!words.empty() && words[0].find('/') == std::string::npos && words[0] != "." && options.name.empty()) {
    std::cerr << "`sbx run NAME` is deprecated; use `sbx run --name NAME` instead\n";
    options.name = words[0];
    words.erase(words.begin());
  } else if (options.name.empty()) {
    return print_error({ErrorCode::kInvalid, "\"sbx run\" requires an agent or --name of an existing sandbox", {}});
  }
  if (words.empty()) words.emplace_back(".");
  const auto request = create_request(options, agent, words);
  if (!request) return print_error(request.error());
  auto found = existing(context, options, agent, (*request)["workspaces"][0]["path"]);
  if (!found) return print_error(found.error());
  json sandbox;
  if (*found) {
    sandbox = **found;
    if (!agent.empty() && sandbox["agent"] != agent) {
      return print_error({ErrorCode::kConflict, "sandbox '" + sandbox.value("name", "") + "' runs agent " + sandbox.value("agent", "") + ", not " + agent, {}});
    }
    if (!options.image.empty() || !options.memory.empty() || options.cpus > 0) {
      return print_error({ErrorCode::kInvalid, "--template, --memory and --cpus can only be used when creating a new sandbox", {}});
    }
    auto started = context.client.call("POST", "/v1/sandboxes/" + percent_encode(sandbox.value("id", "")) + "/start", json::object(), show_progress);
    if (!started) return print_error(started.error());
    if (started->value("started", false)) std::cerr << "Sandbox " << sandbox.value("name", "") << " started successfully\n";
  } else {
    if (agent.empty()) return print_error({ErrorCode::kNotFound, "sandbox '" + options.name + "' not found", {}});
    std::cerr << "Creating new sandbox '" << (options.name.empty() ? sandbox::derive_name(agent, (*request)["workspaces"][0]["path"].get<std::string>()) : options.name) << "'...\n";
    auto made = context.client.call("POST", "/v1/sandboxes", *request, show_progress);
    if (!made) return print_error(made.error());
    sandbox = *made;
  }
  if (options.detached) {
    std::cout << sandbox.value("id", "") << "\n";
    return 0;
  }
  return attach_agent(context, sandbox);
}

std::string joined(const json& list) {
  std::string text;
  for (const auto& entry : list) text += (text.empty() ? "" : ", ") + (entry.is_string() ? entry.get<std::string>() : entry.dump());
  return text;
}

int ls(Context& context, bool as_json, bool quiet, const std::string& filter) {
  std::string target = "/v1/sandboxes";
  if (!filter.empty()) {
    if (!filter.starts_with("label=")) return print_error({ErrorCode::kInvalid, "--filter takes label=KEY or label=KEY=VALUE", {}}, as_json);
    target += "?label=" + percent_encode(filter.substr(6));
  }
  auto answer = context.client.call("GET", target);
  if (!answer) return print_error(answer.error(), as_json);
  auto& list = (*answer)["sandboxes"];
  // Clients of the reference know two states; a sandbox on its way in or out is neither.
  json shown = json::array();
  for (auto& entry : list) {
    if (entry["status"] == "running" || entry["status"] == "stopped") shown.push_back(entry);
  }
  if (as_json) {
    json document;
    document["sandboxes"] = shown;
    std::cout << document.dump(2) << "\n";
    return 0;
  }
  if (quiet) {
    for (const auto& entry : shown) std::cout << entry.value("name", "") << "\n";
    return 0;
  }
  if (shown.empty()) {
    std::cout << "No sandboxes found\n";
    return 0;
  }
  std::vector<std::vector<std::string>> rows = {{"SANDBOX", "AGENT", "STATUS", "PORTS", "WORKSPACE"}};
  for (const auto& entry : shown) {
    rows.push_back({entry.value("name", ""), entry.value("agent", ""), entry.value("status", ""), "",
                    joined(entry.value("workspaces", json::array()))});
  }
  std::cout << table(rows);
  return 0;
}

int inspect(Context& context, const std::string& name, bool as_json) {
  auto answer = context.client.call("GET", "/v1/sandboxes/" + percent_encode(name));
  if (!answer) return print_error(answer.error(), as_json);
  (*answer)["state"] = (*answer)["status"];
  answer->erase("status");
  if (as_json) {
    std::cout << answer->dump(2) << "\n";
    return 0;
  }
  for (const auto& [key, value] : answer->items()) {
    std::cout << key << ": " << (value.is_string() ? value.get<std::string>() : value.is_array() ? joined(value) : value.dump()) << "\n";
  }
  return 0;
}

int stop(Context& context, const std::vector<std::string>& names) {
  int status = 0;
  for (const auto& name : names) {
    auto answer = context.client.call("POST", "/v1/sandboxes/" + percent_encode(name) + "/stop", json::object(), show_progress);
    if (!answer) {
      status = print_error(answer.error());
    } else {
      std::cout << "✓ Sandbox '" << name << "' stopped (state preserved)\n";
    }
  }
  return status;
}

bool confirmed(const std::string& question) {
  std::cerr << question << " (y/N) ";
  std::string answer;
  std::getline(std::cin, answer);
  return answer == "y" || answer == "Y" || answer == "yes";
}

Result<void> require_confirmation(const std::string& question) {
  if (::isatty(STDIN_FILENO) == 0) {
    return fail(ErrorCode::kInvalid, "stdin is not a terminal; use --force to skip confirmation");
  }
  if (!confirmed(question)) return fail(ErrorCode::kInvalid, "cancelled");
  return {};
}

int rm(Context& context, std::vector<std::string> names, bool all, bool force) {
  if (all) {
    auto answer = context.client.call("GET", "/v1/sandboxes");
    if (!answer) return print_error(answer.error());
    names.clear();
    for (const auto& entry : (*answer)["sandboxes"]) names.push_back(entry.value("name", ""));
  } else if (names.empty()) {
    return print_error({ErrorCode::kInvalid, "\"sbx rm\" requires a sandbox, or --all", {}});
  }
  if (!force && !names.empty()) {
    auto sure = require_confirmation("Remove " + std::to_string(names.size()) + " sandbox(es) and everything in them?");
    if (!sure) return print_error(sure.error());
  }
  int status = 0;
  for (const auto& name : names) {
    auto answer = context.client.call("DELETE", "/v1/sandboxes/" + percent_encode(name) + (force ? "?force=1" : ""));
    if (!answer) {
      status = print_error(answer.error());
    } else {
      std::cout << "✓ Sandbox '" << name << "' removed\n";
    }
  }
  return status;
}

// RFC 3339, Unix seconds, or a duration before now, to milliseconds since the epoch.
Result<std::int64_t> parse_until(const std::string& text) {
  std::tm parts{};
  if (const char* end = ::strptime(text.c_str(), "%Y-%m-%dT%H:%M:%SZ", &parts); end != nullptr && *end == '\0') {
    return static_cast<std::int64_t>(::timegm(&parts)) * 1000;
  }
  if (!text.empty() && text.find_first_not_of("0123456789") == std::string::npos && text.size() < 12) {
    return std::stoll(text) * 1000;
  }
  const auto duration = SBX_TRY(parse_duration_ms(text), "reading --filter");
  return std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::system_clock::now().time_since_epoch()).count() - duration;
}

struct PruneOptions {
  bool dry_run = false;
  bool as_json = false;
  bool force = false;
  std::string filter;
};

int prune(Context& context, const PruneOptions& options) {
  json request = {{"dry_run", options.dry_run}};
  if (!options.filter.empty()) {
    const auto equals = options.filter.find('=');
    const auto key = options.filter.substr(0, equals);
    if (equals == std::string::npos || (key != "until" && key != "since")) {
      return print_error({ErrorCode::kInvalid, "--filter takes until=TIMESTAMP|DURATION", {}}, options.as_json);
    }
    const auto until = parse_until(options.filter.substr(equals + 1));
    if (!until) return print_error(until.error(), options.as_json);
    request["until_ms"] = *until;
  }
  if (!options.force && !options.dry_run) {
    auto sure = require_confirmation("Remove all stopped sandboxes?");
    if (!sure) return print_error(sure.error(), options.as_json);
  }
  auto answer = context.client.call("POST", "/v1/prune", request);
  if (!answer) return print_error(answer.error(), options.as_json);
  if (options.as_json) {
    std::cout << answer->dump(2) << "\n";
    return 0;
  }
  for (const auto& name : (*answer)["removed"]) {
    std::cout << (options.dry_run ? "Would remove " : "Removed ") << name.get<std::string>() << "\n";
  }
  if ((*answer)["removed"].empty()) std::cout << "No stopped sandboxes to remove\n";
  return 0;
}

}  // namespace

void add_sandbox_commands(CLI::App& app, Context& context) {
  auto create_options = std::make_shared<CreateOptions>();
  auto* create_command = app.add_subcommand("create", "Create a sandbox without attaching");
  add_create_options(*create_command, *create_options);
  create_command->add_flag("-q,--quiet", create_options->quiet, "Print nothing but errors");
  create_command->callback([&context, create_options] { context.status = create(context, *create_options); });

  auto run_options = std::make_shared<CreateOptions>();
  auto* run_command = app.add_subcommand("run", "Create a sandbox if needed and attach to its agent");
  add_create_options(*run_command, *run_options);
  run_command->add_flag("-d,--detached", run_options->detached, "Print the sandbox's id and exit");
  run_command->callback([&context, run_options] { context.status = run(context, *run_options); });

  struct Flags {
    bool as_json = false, quiet = false, all = false, force = false;
    std::string filter, name;
    std::vector<std::string> names;
  };
  auto ls_flags = std::make_shared<Flags>();
  auto* ls_command = app.add_subcommand("ls", "List sandboxes");
  ls_command->add_flag("--json", ls_flags->as_json, "Print JSON");
  ls_command->add_flag("-q,--quiet", ls_flags->quiet, "Print names only");
  ls_command->add_option("--filter", ls_flags->filter, "label=KEY[=VALUE]");
  ls_command->callback([&context, ls_flags] { context.status = ls(context, ls_flags->as_json, ls_flags->quiet, ls_flags->filter); });

  auto inspect_flags = std::make_shared<Flags>();
  auto* inspect_command = app.add_subcommand("inspect", "Show one sandbox");
  inspect_command->add_option("SANDBOX", inspect_flags->name)->required();
  inspect_command->add_flag("--json", inspect_flags->as_json, "Print JSON");
  inspect_command->callback([&context, inspect_flags] { context.status = inspect(context, inspect_flags->name, inspect_flags->as_json); });

  auto stop_flags = std::make_shared<Flags>();
  auto* stop_command = app.add_subcommand("stop", "Stop sandboxes, keeping their state");
  stop_command->add_option("SANDBOX", stop_flags->names)->required();
  stop_command->callback([&context, stop_flags] { context.status = stop(context, stop_flags->names); });

  auto rm_flags = std::make_shared<Flags>();
  auto* rm_command = app.add_subcommand("rm", "Remove sandboxes and everything in them");
  rm_command->add_option("SANDBOX", rm_flags->names);
  rm_command->add_flag("--all", rm_flags->all, "Remove every sandbox");
  rm_command->add_flag("-f,--force", rm_flags->force, "Do not ask, and remove with sessions attached");
  rm_command->callback([&context, rm_flags] { context.status = rm(context, rm_flags->names, rm_flags->all, rm_flags->force); });

  auto prune_options = std::make_shared<PruneOptions>();
  auto* prune_command = app.add_subcommand("prune", "Remove stopped sandboxes");
  prune_command->add_flag("--dry-run", prune_options->dry_run, "Only say what would be removed");
  prune_command->add_flag("--json", prune_options->as_json, "Print JSON");
  prune_command->add_flag("-f,--force", prune_options->force, "Do not ask");
  prune_command->add_option("--filter", prune_options->filter, "until=TIMESTAMP|DURATION");
  prune_command->callback([&context, prune_options] { context.status = prune(context, *prune_options); });
}

}  // namespace sbx::cli
