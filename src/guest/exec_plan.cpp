#include "guest/exec_plan.h"

#include <sys/wait.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>
#include <sstream>

namespace sbx::guest {
namespace {

constexpr std::string_view kDefaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

bool valid_id(std::string_view id) {
  const auto allowed = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' || c == '_' ||
           c == '-';
  };
  return !id.empty() && id.size() <= 64 && id.front() != '.' && std::ranges::all_of(id, allowed);
}

bool has_nul(const std::string& text) { return text.find('\0') != std::string::npos; }

std::string lower_first(const char* text) {
  std::string result(text);
  if (!result.empty()) result[0] = static_cast<char>(std::tolower(static_cast<unsigned char>(result[0])));
  return result;
}

// pam_env(8) reads K=V, K="V" and K='V'.
std::string unquoted(std::string_view line) {
  const auto equals = line.find('=');
  if (equals == std::string_view::npos) return std::string(line);
  auto value = line.substr(equals + 1);
  if (value.size() >= 2 && (value.front() == '"' || value.front() == '\'') && value.back() == value.front()) {
    value = value.substr(1, value.size() - 2);
  }
  return std::string(line.substr(0, equals + 1)) + std::string(value);
}

}  // namespace

Result<ExecHead> parse_exec_head(std::string_view text) {
  ExecHead head;
  try {
    const auto json = nlohmann::json::parse(text);
    head.id = json.at("id").get<std::string>();
    head.argv = json.at("argv").get<std::vector<std::string>>();
    head.env = json.value("env", std::vector<std::string>());
    head.cwd = json.value("cwd", "");
    head.user = json.value("user", "");
    head.tty = json.value("tty", false);
    head.privileged = json.value("privileged", false);
    head.rows = json.value("rows", head.rows);
    head.cols = json.value("cols", head.cols);
    head.files_seen = json.value("files_seen", head.files_seen);
  } catch (const nlohmann::json::exception& error) {
    return fail(ErrorCode::kInvalid, std::string("the exec head is malformed: ") + error.what());
  }
  if (!valid_id(head.id)) return fail(ErrorCode::kInvalid, "an exec id is 1 to 64 characters of [A-Za-z0-9._-]");
  if (head.argv.empty()) return fail(ErrorCode::kInvalid, "argv is empty: there is no command to run");
  if (std::ranges::any_of(head.argv, has_nul) || std::ranges::any_of(head.env, has_nul) || has_nul(head.cwd)) {
    return fail(ErrorCode::kInvalid, "a NUL byte in argv, env or cwd");
  }
  return head;
}

void assign(std::vector<std::string>& environment, std::string_view assignment) {
  const auto equals = assignment.find('=');
  const auto prefix = std::string(assignment.substr(0, equals)) + "=";
  const auto same = [&](const std::string& entry) { return entry.starts_with(prefix); };
  if (equals == std::string_view::npos) {
    std::erase_if(environment, same);
    return;
  }
  if (equals == 0) return;
  const auto found = std::ranges::find_if(environment, same);
  if (found != environment.end()) {
    *found = std::string(assignment);
  } else {
    environment.emplace_back(assignment);
  }
}

std::string value_of(const std::vector<std::string>& environment, std::string_view key) {
  const auto prefix = std::string(key) + "=";
  for (const auto& entry : environment) {
    if (entry.starts_with(prefix)) return entry.substr(prefix.size());
  }
  return {};
}

std::vector<std::string> build_environment(const User& user, bool tty, std::string_view system,
                                           const std::vector<std::string>& identity,
                                           const std::vector<std::string>& head) {
  std::vector<std::string> environment = {"PATH=" + std::string(kDefaultPath),
                                          "HOME=" + user.home,
                                          "USER=" + user.name,
                                          "LOGNAME=" + user.name,
                                          "SHELL=" + user.shell,
                                          "LANG=C.UTF-8",
                                          "BASH_ENV=/etc/sandbox-persistent.sh"};
  if (tty) environment.emplace_back("TERM=xterm");
  std::istringstream lines{std::string(system)};
  for (std::string line; std::getline(lines, line);) {
    std::string_view entry = line;
    if (entry.starts_with("export ")) entry.remove_prefix(7);
    if (!entry.empty() && entry.front() != '#' && entry.find('=') != std::string_view::npos) {
      assign(environment, unquoted(entry));
    }
  }
  for (const auto& entry : identity) assign(environment, entry);
  for (const auto& entry : head) assign(environment, entry);
  return environment;
}

std::vector<std::string> program_candidates(std::string_view program, std::string_view path) {
  if (program.empty()) return {};
  if (program.find('/') != std::string_view::npos) return {std::string(program)};
  std::vector<std::string> candidates;
  std::istringstream folders{std::string(path.empty() ? kDefaultPath : path)};
  for (std::string folder; std::getline(folders, folder, ':');) {
    candidates.push_back((folder.empty() ? "." : folder) + "/" + std::string(program));
  }
  return candidates;
}

ExecFailure describe_failure(SpawnStage stage, int error_number, const ExecHead& head, std::string_view cwd) {
  const auto reason = lower_first(std::strerror(error_number));
  const std::string& program = head.argv.front();
  switch (stage) {
    case SpawnStage::kFolder:
      return {127, "chdir to cwd (\"" + std::string(cwd) + "\") failed: " + reason};
    case SpawnStage::kUser:
      return {126, "setting the user \"" + head.user + "\" failed: " + reason};
    case SpawnStage::kSetup:
      return {126, "preparing the command failed: " + reason};
    case SpawnStage::kProgram:
      break;
  }
  const auto prefix = "exec: \"" + program + "\": ";
  if (error_number == ENOENT && program.find('/') == std::string::npos) {
    return {127, prefix + "executable file not found in $PATH"};
  }
  if (error_number == ENOENT) return {127, prefix + "stat " + program + ": " + reason};
  if (error_number == ENOTDIR) return {127, prefix + reason};
  return {126, prefix + reason};
}

std::string exec_status_json(int wait_status, bool out_of_memory) {
  nlohmann::json status;
  if (WIFSIGNALED(wait_status)) {
    status["signal"] = WTERMSIG(wait_status);
  } else {
    status["exit_code"] = WEXITSTATUS(wait_status);
  }
  if (out_of_memory) {
    status["error"] =
        "the sandbox ran out of memory, and its kernel killed a process of this command; "
        "a sandbox gets more with 'sbx create --memory SIZE'";
  }
  return status.dump();
}

std::string exec_status_json(const ExecFailure& failure) {
  return nlohmann::json{{"exit_code", failure.exit_code}, {"error", failure.message}}.dump(
      -1, ' ', false, nlohmann::json::error_handler_t::replace);
}

}  // namespace sbx::guest
