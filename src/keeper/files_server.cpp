#include "keeper/files_server.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/file.h"
#include "keeper/workspace_source.h"
#include "vm/jail.h"
#include "vm/machine_process.h"

namespace sbx::keeper {

namespace fs = std::filesystem;

std::string place_in_jail(const Workspace& workspace) {
  return std::string(kWorkspacesInJail) + "/" + std::to_string(workspace.index);
}

Command files_server_command(const LaunchSpec& spec, const fs::path& program, const FilesServerFds& fds) {
  vm::JailSpec jail;
  jail.proc = true;  // files are opened for I/O through /proc/self/fd
  jail.binds.push_back({program, "/sbx-files", vm::BindMode::kReadOnly});
  jail.argv = {"/sbx-files", "--late-folder", kWorkspacesInJail};
  for (const auto& [option, fd] : {std::pair{"--port-fd", fds.port},
                                   {"--control-fd", fds.control},
                                   {"--journal-fd", fds.journal},
                                   {"--before-fd", fds.before}}) {
    jail.argv.insert(jail.argv.end(), {option, std::to_string(fd)});
  }
  for (const auto& pattern : spec.protection.protect) jail.argv.push_back("--protect=" + pattern);
  for (const auto& pattern : spec.protection.hide) jail.argv.push_back("--hide=" + pattern);
  if (spec.protection.deny) jail.argv.emplace_back("--deny");
  auto source = fds.sources.begin();
  for (const auto& workspace : spec.workspaces) {
    const std::string target = place_in_jail(workspace);
    jail.binds.push_back(
        {workspace.source, target, workspace.readonly ? vm::BindMode::kReadOnly : vm::BindMode::kReadWrite});
    jail.argv.insert(jail.argv.end(), {"--workspace", std::to_string(workspace.index) + ":" + target +
                                                          (workspace.readonly ? ":ro" : "")});
    jail.argv.insert(jail.argv.end(), {"--opened-fd", std::to_string(*source++)});
  }
  auto command = vm::jailed(jail);
  for (const int fd : {fds.port, fds.control, fds.journal, fds.before}) command.keep_fd(fd);
  for (const int fd : fds.sources) command.keep_fd(fd);
  return command;
}

Result<Subprocess> start_files_server(const LaunchSpec& spec, UniqueFd& control) {
  const auto program = SBX_TRY(sibling_program("sbx-files"), "starting sbx-files");
  std::vector<UniqueFd> sources;
  for (const auto& workspace : spec.workspaces)
    sources.push_back(SBX_TRY(open_source(workspace), "starting sbx-files"));
  auto port = SBX_TRY(vm::connect_port(spec.runtime_folder, 2), "connecting to the files port");
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) return fail_errno("socketpair", errno);
  control.reset(ends[0]);
  const UniqueFd theirs(ends[1]);
  auto log = SBX_TRY(open_file(spec.runtime_folder / "files.log", O_CREAT | O_WRONLY | O_APPEND), "starting sbx-files");
  const auto journal = SBX_TRY(open_file(spec.journal(), O_RDWR | O_CREAT), "opening the list of changes");
  const auto before = SBX_TRY(open_file(spec.journal_before(), O_RDWR | O_CREAT), "opening the list of changes");
  FilesServerFds fds{port.get(), theirs.get(), journal.get(), before.get(), {}};
  for (const auto& source : sources) fds.sources.push_back(source.get());
  return files_server_command(spec, program, fds).stderr_to(log.get()).start();
}

Result<fs::path> sibling_program(std::string_view name) {
  std::error_code error;
  const auto self = fs::read_symlink("/proc/self/exe", error);
  if (error) return fail(ErrorCode::kInternal, "cannot tell where this program is: " + error.message());
  const auto path = self.parent_path() / name;
  if (::access(path.c_str(), X_OK) != 0) {
    return fail(ErrorCode::kNotFound, path.string() + " is missing; build or install sbx again");
  }
  return path;
}

}  // namespace sbx::keeper
