// version, daemon, diagnose, reset, login, logout, image, template; and the commands that are not built yet.
#include <unistd.h>

#include <CLI/CLI.hpp>

#include "base/command.h"
#include "cli/context.h"

namespace sbx::cli {

using nlohmann::json;

namespace {

int show_version(Context& context, bool as_json) {
  if (as_json) {
    std::cout << json{{"version", "v" SBX_VERSION}}.dump() << "\n";
  } else {
    std::cout << "sbx version: v" SBX_VERSION "\n";
  }
  if (context.debug && context.client.daemon_answers()) {
    auto daemon = context.client.call("GET", "/v1/daemon");
    if (daemon) std::cerr << "sbxd version: v" << daemon->value("version", "") << "\n";
  }
  return 0;
}

int daemon_start(Context& context, bool detach, const std::string& app_name) {
  if (detach) {
    auto started = context.client.start_daemon();
    return started ? 0 : print_error(started.error());
  }
  std::error_code error;
  const auto program = std::filesystem::read_symlink("/proc/self/exe", error).parent_path() / "sbxd";
  std::vector<std::string> words = {program.string()};
  if (!app_name.empty()) words.insert(words.end(), {"--app-name", app_name});
  std::vector<char*> argv;
  for (auto& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  ::execv(argv[0], argv.data());
  return print_error({ErrorCode::kNotFound, program.string() + " cannot be run", {}});
}

int daemon_stop(Context& context) {
  if (!context.client.daemon_answers()) {
    std::cout << "The daemon is not running\n";
    return 0;
  }
  auto stopped = context.client.call("POST", "/v1/daemon/stop", json::object());
  if (!stopped) return print_error(stopped.error());
  for (int i = 0; i < 100 && context.client.daemon_answers(); ++i) ::usleep(20000);
  std::cout << "✓ Daemon stopped; running sandboxes go on\n";
  return 0;
}

int daemon_status(Context& context) {
  const auto paths = context.client.paths();
  if (!paths) return print_error(paths.error());
  const bool running = context.client.daemon_answers();
  std::cout << "Status: " << (running ? "running" : "stopped") << "\nSocket: " << paths->daemon_socket().string()
            << "\nLogs: " << paths->daemon_log().string() << "\n";
  if (running) {
    auto daemon = context.client.call("GET", "/v1/daemon");
    if (daemon) std::cout << "Pid: " << daemon->value("pid", 0) << "\n";
  }
  return 0;
}

int diagnose(Context& context, bool as_json) {
  auto answer = context.client.call("GET", "/v1/diagnose");
  if (!answer) return print_error(answer.error(), as_json);
  json summary = {{"pass", 0}, {"warn", 0}, {"fail", 0}, {"skip", 0}};
  for (const auto& check : (*answer)["checks"]) {
    const auto status = check.value("status", "fail");
    summary[status] = summary.value(status, 0) + 1;
  }
  if (as_json) {
    (*answer)["version"] = "1.0";
    (*answer)["summary"] = summary;
    std::cout << answer->dump(2) << "\n";
  } else {
    for (const auto& check : (*answer)["checks"]) {
      const auto status = check.value("status", "fail");
      std::cout << (status == "pass" ? "✓ " : status == "warn" ? "! " : "✗ ") << check.value("name", "") << ": "
                << check.value("message", "") << "\n";
      if (!check.value("hint", "").empty()) std::cout << "  → " << check.value("hint", "") << "\n";
    }
  }
  return summary["fail"] == 0 ? 0 : 1;
}

int reset(Context& context, bool force) {
  if (!force) {
    return print_error({ErrorCode::kInvalid, "this removes every sandbox, template and image; use --force to confirm", {}});
  }
  auto answer = context.client.call("POST", "/v1/reset", json::object(), show_progress);
  if (!answer) return print_error(answer.error());
  (void)daemon_stop(context);
  std::cout << "✓ Reset complete!\nSummary:\n";
  for (const auto& [what, count] : answer->items()) std::cout << "  - " << what << ": " << count.dump() << " removed\n";
  return 0;
}

std::string megabytes(const json& entry, const char* key) {
  return entry.contains(key) && entry[key].is_number() ? std::to_string(entry[key].get<std::int64_t>() >> 20) + " MiB" : "";
}

// images and templates: a list of objects with an id.
int list_things(Context& context, const std::string& what, bool as_json) {
  auto answer = context.client.call("GET", "/v1/" + what);
  if (!answer) return print_error(answer.error(), as_json);
  if (as_json) {
    std::cout << answer->dump(2) << "\n";
    return 0;
  }
  std::vector<std::vector<std::string>> rows = {{"ID", "CREATED", "SIZE"}};
  for (const auto& entry : (*answer)[what]) {
    rows.push_back({entry.value("id", ""), entry.value("created_at", ""), megabytes(entry, "size")});
  }
  std::cout << table(rows);
  return 0;
}

int remove_things(Context& context, const std::string& what, const std::vector<std::string>& ids) {
  int status = 0;
  for (const auto& id : ids) {
    auto answer = context.client.call("DELETE", "/v1/" + what + "/" + percent_encode(id));
    if (answer) {
      std::cout << "Deleted " << id << "\n";
    } else {
      status = print_error(answer.error());
    }
  }
  return status;
}

int build_image(Context& context) {
  auto answer = context.client.call("POST", "/v1/images", json::object(), show_progress);
  if (!answer) return print_error(answer.error());
  std::cout << answer->value("id", "") << "\n";
  return 0;
}

void add_things(CLI::App& group, Context& context, const std::string& what) {
  auto as_json = std::make_shared<bool>(false);
  auto* ls = group.add_subcommand("ls", "List them");
  ls->add_flag("--json", *as_json, "Print JSON");
  ls->callback([&context, what, as_json] { context.status = list_things(context, what, *as_json); });
  auto ids = std::make_shared<std::vector<std::string>>();
  auto* rm = group.add_subcommand("rm", "Remove unused ones");
  rm->add_option("ID", *ids)->required();
  rm->add_flag("-f,--force", "Accepted: nothing is asked");
  rm->callback([&context, what, ids] { context.status = remove_things(context, what, *ids); });
}

}  // namespace

void add_host_commands(CLI::App& app, Context& context) {
  auto as_json = std::make_shared<bool>(false);
  auto* version = app.add_subcommand("version", "Print the version");
  version->add_flag("--json", *as_json, "Print JSON");
  version->callback([&context, as_json] { context.status = show_version(context, *as_json); });

  auto* daemon = app.add_subcommand("daemon", "Control the daemon");
  daemon->require_subcommand(1);
  auto detach = std::make_shared<bool>(false);
  auto* start = daemon->add_subcommand("start", "Start it (in the foreground without -d)");
  start->add_flag("-d,--detach", *detach, "In the background");
  start->callback([&context, &app, detach] {
    context.status = daemon_start(context, *detach, app.get_option("--app-name")->as<std::string>());
  });
  daemon->add_subcommand("stop", "Stop it; sandboxes go on")->callback([&context] { context.status = daemon_stop(context); });
  daemon->add_subcommand("status", "Is it running?")->callback([&context] { context.status = daemon_status(context); });
  daemon->add_subcommand("restart", "Stop and start it")->callback([&context] {
    context.status = daemon_stop(context);
    if (context.status != 0) return;
    auto started = context.client.start_daemon();
    context.status = started ? 0 : print_error(started.error());
  });

  auto diagnose_format = std::make_shared<std::string>();
  auto diagnose_json = std::make_shared<bool>(false);
  auto* diagnose_command = app.add_subcommand("diagnose", "Check this host");
  diagnose_command->add_option("-o,--output", *diagnose_format, "json");
  diagnose_command->add_flag("--json", *diagnose_json, "Print JSON");
  diagnose_command->callback([&context, diagnose_format, diagnose_json] {
    context.status = diagnose(context, *diagnose_json || *diagnose_format == "json");
  });

  auto force = std::make_shared<bool>(false);
  auto* reset_command = app.add_subcommand("reset", "Remove everything and stop the daemon");
  reset_command->add_flag("-f,--force", *force, "Do not ask");
  reset_command->add_flag("--preserve-secrets", "Accepted: there are no secrets yet");
  reset_command->callback([&context, force] { context.status = reset(context, *force); });

  auto* login = app.add_subcommand("login", "Nothing to do: sbx needs no account");
  login->allow_extras();
  login->callback([] { std::cout << "No login is needed\n"; });
  auto* logout = app.add_subcommand("logout", "Nothing to do: sbx needs no account");
  logout->allow_extras();
  logout->callback([] { std::cout << "No login is needed\n"; });

  auto* image = app.add_subcommand("image", "Root images of sandboxes");
  image->require_subcommand(1);
  add_things(*image, context, "images");
  image->add_subcommand("build", "Build the root image (once; takes minutes)")->callback([&context] {
    context.status = build_image(context);
  });
  auto* templates = app.add_subcommand("template", "Warmed machines that sandboxes are clones of");
  templates->require_subcommand(1);
  add_things(*templates, context, "templates");
}

void add_unbuilt_commands(CLI::App& app, Context& context) {
  for (const char* name : {"cp", "completion", "ports", "policy", "secret", "kit", "env", "mcp", "skills", "settings", "setup", "mount", "ssh", "tui"}) {
    auto* command = app.add_subcommand(name, "Not built yet");
    command->allow_extras();
    command->callback([&context, name] {
      context.status = print_error({ErrorCode::kUnavailable, "'sbx " + std::string(name) + "' is not built yet", {}});
    });
  }
  for (const char* name : {"attach", "ttl", "volume", "move"}) {
    auto* command = app.add_subcommand(name, "Cloud only; not part of sbx");
    command->allow_extras();
    command->callback([&context, name] {
      context.status = print_error({ErrorCode::kInvalid, "'sbx " + std::string(name) + "' is a cloud command; sbx runs sandboxes on this machine", {}});
    });
  }
}

}  // namespace sbx::cli
