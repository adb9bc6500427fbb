#include "cli/clone_remote.h"

#include <stdlib.h>

#include <algorithm>
#include <filesystem>
#include <iostream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "base/command.h"
#include "base/file.h"
#include "cli/attach.h"
#include "cli/commands.h"
#include "cli/pkt_lines.h"
#include "cli/table.h"

namespace sbx::cli {
namespace {

using nlohmann::json;
namespace fs = std::filesystem;

constexpr const char* kOurVerb = " git-upload-pack ";
constexpr const char* kFsck = "fetch.fsckObjects";
constexpr const char* kFsckIsOurs = "sbx.setFsckObjects";
constexpr std::size_t kMostHeads = 1000;

// Output without the newline at its end. A hook or monitor of the repository has no part in what we ask.
Result<std::string> git(const std::string& root, std::vector<std::string> arguments) {
  Command command({"git", "-C", root, "-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null"});
  auto output = command.add(std::move(arguments)).output();
  if (!output && output.error().code == ErrorCode::kNotFound)
    return fail(ErrorCode::kInvalid, "--clone needs git on this host, and it is not installed");
  if (output) {
    while (output->ends_with('\n')) output->pop_back();
  }
  return output;
}

std::string quoted(const std::string& text) {
  std::string result = "'";
  for (const char c : text) result += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return result + "'";
}

// What git runs through the shell (git-fetch(1), --upload-pack). This program, and the same daemon.
Result<std::string> upload_pack_command(const ApiClient& client, const std::string& name) {
  std::error_code error;
  const auto self = fs::read_symlink("/proc/self/exe", error);
  if (error) return fail(ErrorCode::kInternal, "cannot tell where this program is: " + error.message());
  std::string command;
  if (const char* home = ::getenv("SBX_HOME"); home != nullptr && *home != '\0')
    command = "SBX_HOME=" + quoted(fs::absolute(home).native()) + " ";
  command += quoted(self.native());
  if (!client.app_name().empty()) command += " --app-name " + quoted(client.app_name());
  return command + kOurVerb + name;
}

std::string remote_of(const json& sandbox) { return "sandbox-" + sandbox.value("name", ""); }
std::string root_of(const json& sandbox) {
  return sandbox.contains("clone") ? sandbox["clone"].value("source", "") : std::string();
}
bool is_ours(const std::string& root, const json& sandbox) {
  const auto command = git(root, {"config", "--get", "remote." + remote_of(sandbox) + ".uploadpack"});
  return command && command->ends_with(kOurVerb + sandbox.value("name", ""));
}

std::string counted(std::size_t number, const std::string& what) {
  return std::to_string(number) + " " + what + " file" + (number == 1 ? "" : "s");
}

std::string uncommitted_in(const std::string& root) {
  const auto status = git(root, {"--no-optional-locks", "status", "--porcelain"});
  if (!status) return {};
  std::size_t changed = 0;
  std::size_t untracked = 0;
  std::istringstream lines(*status);
  for (std::string line; std::getline(lines, line);) ++(line.starts_with("??") ? untracked : changed);
  if (changed + untracked == 0) return {};
  const std::string both = changed == 0     ? counted(untracked, "untracked")
                           : untracked == 0 ? counted(changed, "changed")
                                            : counted(changed, "changed") + " and " + counted(untracked, "untracked");
  return both + " in " + root +
         " will not be in the clone, which has what is committed; the sandbox can read them in "
         "/run/sandbox/source";
}

// Heads of the sandbox's repository that no ref of the host's holds. What is said comes from the guest.
Result<std::vector<std::string>> heads_not_here(const std::string& root, const std::string& remote) {
  // In a shell, for the bounds: a guest may answer without end, or not at all.
  const auto said = SBX_TRY(Command({"/bin/sh", "-c",
                                     "{ timeout 60 git -C \"$0\" ls-remote --heads \"$1\" || echo failed; } | "
                                     "head -c 1000000",
                                     root, remote})
                                .output(),
                            "asking the sandbox for its branches");
  if (said.ends_with("failed\n")) return fail(ErrorCode::kUnavailable, "git ls-remote " + remote + " failed");
  std::vector<std::string> heads;
  std::istringstream lines(said);
  std::size_t examined = 0;
  for (std::string line; std::getline(lines, line) && examined < kMostHeads; ++examined) {
    const auto tab = line.find('\t');
    const std::string object = line.substr(0, tab);
    if (tab == std::string::npos || object.size() < 40 || object.find_first_not_of("0123456789abcdef") != object.npos)
      continue;
    const auto holder = git(root, {"for-each-ref", "--count=1", "--contains", object});
    if (!holder || holder->empty()) heads.push_back(visible(line.substr(tab + 1)));
  }
  return heads;
}

// As the guest's git says. -1 if it says nothing.
int uncommitted_in_sandbox(const ApiClient& client, const json& sandbox) {
  AttachOptions options;
  options.command = {{"argv", {"timeout", "60", "git", "--no-optional-locks", "status", "--porcelain"}},
                     {"cwd", sandbox["clone"].value("path", "")},
                     {"tty", false}};
  options.stdin_fd = -1;
  options.deadline = std::chrono::seconds(90);  // whatever the guest makes of `timeout`
  int lines = 0;
  options.sink = [&lines](int stream, std::string_view data) -> Result<void> {
    if (stream == 1 && lines < 1'000'000) lines += static_cast<int>(std::ranges::count(data, '\n'));
    return {};
  };
  const auto status = attach(client, sandbox.value("name", ""), std::move(options));
  return status && *status == 0 ? lines : -1;
}

}  // namespace

Result<HostRepository> host_repository(const std::string& path) {
  HostRepository repository;
  auto root = git(path, {"rev-parse", "--show-toplevel"});
  if (!root || root->empty()) {
    if (!root && root.error().message.find("not installed") != std::string::npos) return std::unexpected(root.error());
    const bool owner = !root && root.error().message.find("dubious ownership") != std::string::npos;
    return fail(ErrorCode::kInvalid, "--clone requires a Git repository, but " + path +
                                         (owner ? " belongs to another user, which git refuses (safe.directory)"
                                                : " is not in a Git repository"));
  }
  repository.root = *root;
  if (!git(*root, {"rev-parse", "--quiet", "--verify", "HEAD^{commit}"}))
    return fail(ErrorCode::kInvalid, *root + " has no commits yet; commit something first, then clone it");
  repository.user_name = git(*root, {"config", "--get", "user.name"}).value_or("");
  repository.user_email = git(*root, {"config", "--get", "user.email"}).value_or("");
  repository.not_carried_over = uncommitted_in(*root);
  return repository;
}

Result<void> set_clone_remote(const ApiClient& client, const json& sandbox) {
  const std::string root = root_of(sandbox);
  if (root.empty()) return {};
  const std::string name = sandbox.value("name", "");
  const std::string remote = remote_of(sandbox);
  const std::string section = "remote." + remote;
  if (!git(root, {"check-ref-format", "refs/sandboxes/" + name + "/branch"})) {
    return fail(ErrorCode::kInvalid, "git takes no remote with the name \"" + remote +
                                         "\"; 'sbx cp' gets files out, "
                                         "and --name gives the next sandbox another name");
  }
  const auto url = git(root, {"config", "--get", section + ".url"});
  if (url && *url != "/run/sandbox/" + name) {
    return fail(ErrorCode::kConflict, root + " has a remote \"" + remote +
                                          "\" that is not this sandbox's; after 'git " + "remote rename " + remote +
                                          " OTHER', 'sbx run -d --name " + name + "' adds it");
  }
  const auto command = SBX_TRY(upload_pack_command(client, name), "adding the remote");
  if (git(root, {"config", "--get", section + ".uploadpack"}).value_or("") == command) return {};
  const std::vector<std::pair<std::string, std::string>> values = {
      {".url", "/run/sandbox/" + name}, {".tagOpt", "--no-tags"}, {".prune", "false"}, {".skipFetchAll", "true"}};
  for (const auto& [key, value] : values)
    SBX_TRY(git(root, {"config", "--replace-all", section + key, value}), "adding the remote");
  SBX_TRY(git(root, {"config", "--replace-all", section + ".fetch", "+refs/heads/*:refs/remotes/" + remote + "/*"}),
          "adding the remote");
  SBX_TRY(git(root, {"config", "--add", section + ".fetch", "+refs/heads/*:refs/sandboxes/" + name + "/*"}),
          "adding the remote");
  // git has no such switch for a single remote.
  if (!git(root, {"config", "--get", kFsck}) && !git(root, {"config", "--get", "transfer.fsckObjects"})) {
    SBX_TRY(git(root, {"config", kFsck, "true"}), "having git check what it fetches");
    SBX_TRY(git(root, {"config", kFsckIsOurs, "true"}), "having git check what it fetches");
  }
  // Last: what is there is whole.
  SBX_TRY(git(root, {"config", "--replace-all", section + ".uploadpack", command}), "adding the remote");
  return {};
}

void remove_clone_remote(const json& sandbox) {
  const std::string root = root_of(sandbox);
  if (root.empty() || !is_ours(root, sandbox)) return;
  const std::string remote = remote_of(sandbox);
  // git removes what a remote's refspecs lead to: those that survive are none of it any more.
  (void)git(root,
            {"config", "--replace-all", "remote." + remote + ".fetch", "+refs/heads/*:refs/remotes/" + remote + "/*"});
  if (const auto removed = git(root, {"remote", "remove", remote}); !removed)
    std::cerr << "WARNING: " << removed.error().message << "\n";
  if (git(root, {"config", "--get", kFsckIsOurs}) &&
      !git(root, {"config", "--get-regexp", "^remote\\.sandbox-.*\\.uploadpack$"})) {
    (void)git(root, {"config", "--unset-all", kFsck});
    (void)git(root, {"config", "--remove-section", "sbx"});
  }
}

std::vector<std::string> unsaved_work(const ApiClient& client, const json& sandbox) {
  const std::string root = root_of(sandbox);
  if (root.empty()) return {};
  const std::string name = sandbox.value("name", "");
  std::vector<std::string> lines;
  const auto heads = heads_not_here(root, remote_of(sandbox));
  if (!heads) {
    lines.push_back("sandbox '" + name + "' could not be asked for commits that are not on this host");
    return lines;
  }
  for (const auto& head : *heads)
    lines.push_back(head + " of sandbox '" + name + "' has commits that are not on this host; 'git fetch " +
                    remote_of(sandbox) + "' in " + root + " keeps them");
  if (const int changed = uncommitted_in_sandbox(client, sandbox); changed > 0)
    lines.push_back(counted(static_cast<std::size_t>(changed), "changed") + " in the clone of sandbox '" + name + "' " +
                    (changed == 1 ? "is" : "are") + " not committed");
  return lines;
}

Result<int> serve_upload_pack(const ApiClient& client, const std::string& name) {
  const json sandbox = SBX_TRY(client.call("GET", sandbox_target(name)), "looking for the sandbox");
  if (!sandbox.contains("clone"))
    return fail(ErrorCode::kInvalid, "sandbox '" + name + "' has no clone to fetch from; its workspace is the host's");
  AttachOptions options;
  options.command = {
      {"argv", {"git", "upload-pack", sandbox["clone"].value("path", "")}}, {"cwd", "/"}, {"tty", false}};
  if (const char* protocol = ::getenv("GIT_PROTOCOL"); protocol != nullptr && std::string_view(protocol).size() < 64)
    options.command["env"] = json::array({std::string("GIT_PROTOCOL=") + protocol});
  options.sink = [lines = PktLines()](int stream, std::string_view data) mutable -> Result<void> {
    if (stream != 1) return write_all(2, visible(data, "\n\t"));
    return write_all(1, SBX_TRY(lines.feed(data), "fetching from the sandbox"));
  };
  return attach(client, name, std::move(options));
}

}  // namespace sbx::cli
