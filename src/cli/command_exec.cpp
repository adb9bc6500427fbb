#include "cli/command_exec.h"

#include <unistd.h>

#include "base/file.h"
#include "cli/attach.h"
#include "cli/context.h"
#include "wire/stdcopy.h"

namespace sbx::cli {

using nlohmann::json;

namespace {

constexpr std::string_view kUsage =
    R"(Run a command in a sandbox, starting it if it is stopped

Usage:  sbx exec [OPTIONS] SANDBOX COMMAND [ARG...]
        sbx exec --list SANDBOX
        sbx exec --wait ID [SANDBOX]
        sbx exec --logs ID [-f] [SANDBOX]

Options:
  -d, --detach           Run in the background and print an id
  -e, --env KEY=VALUE    Set an environment variable (a bare KEY copies the host's)
      --env-file FILE    Read environment variables from a file
  -f, --follow           With --logs: go on until the command ends
  -i, --interactive      Accepted for compatibility: stdin is always passed on
      --json             Print errors, and the list, as JSON
      --list             List the sandbox's commands
      --logs ID          Print the output of a background command (its last MiB)
      --privileged       Run as root
  -t, --tty              Allocate a terminal
  -u, --user USER        NAME|UID[:GROUP|GID]
      --wait ID          Wait for a background command and exit with its status
  -w, --workdir DIR      Working directory (default: the primary workspace)
)";

// Where parsing stands.
struct Cursor {
  const std::vector<std::string>& arguments;
  std::size_t at = 0;
  bool done() const { return at >= arguments.size(); }
};

// The value of a flag: "--flag=value", "-uvalue", or the next argument.
Result<std::string> value_of(Cursor& cursor, const std::string& flag, const std::optional<std::string>& attached) {
  if (attached) return *attached;
  if (cursor.done()) return fail(ErrorCode::kInvalid, flag + " needs a value");
  return cursor.arguments[cursor.at++];
}

Result<void> take_flag(ExecArguments& parsed, Cursor& cursor, std::string flag, std::optional<std::string> attached) {
  const auto value = [&] { return value_of(cursor, flag, attached); };
  using Action = ExecArguments::Action;
  if (flag == "-e" || flag == "--env") {
    add_env(parsed.env, SBX_TRY(value(), "reading the options"));
  } else if (flag == "--env-file") {
    auto entries = SBX_TRY(read_env_file(SBX_TRY(value(), "reading the options")), "reading the options");
    parsed.env.insert(parsed.env.begin(), entries.begin(), entries.end());
  } else if (flag == "-u" || flag == "--user") {
    parsed.user = SBX_TRY(value(), "reading the options");
  } else if (flag == "-w" || flag == "--workdir") {
    parsed.workdir = SBX_TRY(value(), "reading the options");
  } else if (flag == "--wait" || flag == "--logs") {
    parsed.action = flag == "--wait" ? Action::kWait : Action::kLogs;
    parsed.exec_id = SBX_TRY(value(), "reading the options");
  } else if (flag == "--list") {
    parsed.action = Action::kList;
  } else if (flag == "-h" || flag == "--help") {
    parsed.action = Action::kHelp;
  } else if (flag == "-t" || flag == "--tty") {
    parsed.tty = true;
  } else if (flag == "-i" || flag == "--interactive") {
    parsed.interactive = true;
  } else if (flag == "-d" || flag == "--detach") {
    parsed.detach = true;
  } else if (flag == "-f" || flag == "--follow") {
    parsed.follow = true;
  } else if (flag == "--privileged") {
    parsed.privileged = true;
  } else if (flag == "--json") {
    parsed.json = true;
  } else {
    return fail(ErrorCode::kInvalid, "unknown flag: " + flag + "; see 'sbx exec --help'");
  }
  return {};
}

Result<void> take_word(ExecArguments& parsed, Cursor& cursor, const std::string& word) {
  if (word.starts_with("--")) {
    const auto equals = word.find('=');
    if (equals == std::string::npos) return take_flag(parsed, cursor, word, std::nullopt);
    return take_flag(parsed, cursor, word.substr(0, equals), word.substr(equals + 1));
  }
  // -it, -uroot, -eA=1
  for (std::size_t i = 1; i < word.size(); ++i) {
    const std::string flag{'-', word[i]};
    if (std::string_view("euw").find(word[i]) != std::string_view::npos && i + 1 < word.size()) {
      return take_flag(parsed, cursor, flag, word.substr(i + 1));
    }
    SBX_CHECK(take_flag(parsed, cursor, flag, std::nullopt), "reading the options");
  }
  return {};
}

json exec_request(const ExecArguments& parsed) {
  json request = {{"argv", parsed.argv}, {"tty", parsed.tty}, {"stdin", true}};
  if (!parsed.env.empty()) request["env"] = parsed.env;
  if (!parsed.user.empty()) request["user"] = parsed.user;
  if (!parsed.workdir.empty()) request["cwd"] = parsed.workdir;
  if (parsed.privileged) request["privileged"] = true;
  return request;
}

int list(Context& context, const ExecArguments& parsed) {
  auto answer = context.client.call("GET", "/v1/sandboxes/" + percent_encode(parsed.sandbox) + "/execs");
  if (!answer) return print_error(answer.error(), parsed.json, answer.error().code == ErrorCode::kNotFound ? 125 : 1);
  if (parsed.json) {
    std::cout << answer->dump(2) << "\n";
    return 0;
  }
  std::vector<std::vector<std::string>> rows = {{"ID", "STATUS", "STARTED", "COMMAND"}};
  for (const auto& exec : (*answer)["execs"]) {
    std::string command;
    for (const auto& word : exec.value("argv", json::array())) {
      command += (command.empty() ? "" : " ") + (word.is_string() ? word.get<std::string>() : "?");
    }
    std::string status = "running";
    if (!exec.value("running", false)) {
      const auto ended = exec.value("status", json::object());
      status = ended.contains("signal") ? "signal " + ended["signal"].dump() : "exited (" + ended.value("exit_code", json(125)).dump() + ")";
    }
    rows.push_back({exec.value("id", ""), status, exec.value("started_at", ""), command});
  }
  std::cout << table(rows);
  return 0;
}

int wait(Context& context, const ExecArguments& parsed) {
  auto status = context.client.call("GET", "/v1/execs/" + percent_encode(parsed.exec_id) + "/wait");
  if (!status) return print_error(status.error(), parsed.json, 125);
  if (status->contains("signal")) return 128 + status->value("signal", 0);
  return status->value("exit_code", 125);
}

int logs(Context& context, const ExecArguments& parsed) {
  wire::StdcopyReader reader([](wire::StdStream stream, std::string_view piece) {
    if (stream == wire::StdStream::kStatus) return;
    (void)write_all(stream == wire::StdStream::kStderr ? STDERR_FILENO : STDOUT_FILENO, piece);
  });
  const std::string target =
      "/v1/execs/" + percent_encode(parsed.exec_id) + "/logs" + (parsed.follow ? "?follow=1" : "");
  auto done = context.client.stream(target, [&](std::string_view piece) { (void)reader.feed(piece); });
  return done ? 0 : print_error(done.error(), parsed.json, 125);
}

int run_detached(Context& context, const ExecArguments& parsed) {
  auto answer = context.client.call("POST", "/v1/sandboxes/" + percent_encode(parsed.sandbox) + "/execs",
                                    exec_request(parsed), show_progress);
  if (!answer) return print_error(answer.error(), parsed.json, 125);
  std::cout << answer->value("id", "") << "\n";
  return 0;
}

}  // namespace

Result<ExecArguments> parse_exec(const std::vector<std::string>& arguments) {
  ExecArguments parsed;
  Cursor cursor{arguments};
  while (!cursor.done()) {
    const std::string& word = arguments[cursor.at];
    if (word == "--") {
      ++cursor.at;
      if (parsed.sandbox.empty() && !cursor.done()) parsed.sandbox = arguments[cursor.at++];
      break;
    }
    if (word.size() > 1 && word.front() == '-') {
      ++cursor.at;
      SBX_CHECK(take_word(parsed, cursor, word), "reading the options");
      continue;
    }
    if (!parsed.sandbox.empty()) break;
    if (word.empty()) return fail(ErrorCode::kInvalid, "the sandbox's name is empty");
    parsed.sandbox = word;
    ++cursor.at;
  }
  parsed.argv.assign(arguments.begin() + static_cast<std::ptrdiff_t>(cursor.at), arguments.end());
  using Action = ExecArguments::Action;
  if (parsed.action == Action::kRun && (parsed.sandbox.empty() || parsed.argv.empty())) {
    return fail(ErrorCode::kInvalid, "\"sbx exec\" requires a sandbox and a command; see 'sbx exec --help'");
  }
  if (parsed.action == Action::kList && parsed.sandbox.empty()) {
    return fail(ErrorCode::kInvalid, "\"sbx exec --list\" requires a sandbox");
  }
  return parsed;
}

int attach_and_report(Context& context, const std::string& sandbox, json request, bool tty, int error_status) {
  const auto socket = context.client.socket();
  if (!socket) return print_error(socket.error(), false, error_status);
  const auto status = attach(*socket, sandbox, std::move(request), {tty});
  return status ? *status : print_error(status.error(), false, error_status);
}

int run_exec(Context& context, const std::vector<std::string>& arguments) {
  auto parsed = parse_exec(arguments);
  if (!parsed) return print_error(parsed.error());
  switch (parsed->action) {
    case ExecArguments::Action::kHelp:
      std::cout << kUsage;
      return 0;
    case ExecArguments::Action::kList:
      return list(context, *parsed);
    case ExecArguments::Action::kWait:
      return wait(context, *parsed);
    case ExecArguments::Action::kLogs:
      return logs(context, *parsed);
    case ExecArguments::Action::kRun:
      break;
  }
  if (parsed->detach) return run_detached(context, *parsed);
  return attach_and_report(context, parsed->sandbox, exec_request(*parsed), parsed->tty, 125);
}

}  // namespace sbx::cli
