// FilesServer: the jailed sbx-files process of a sandbox. Owns the process; one executor.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "base/command.h"
#include "base/result.h"
#include "base/unique_fd.h"
#include "keeper/launch_spec.h"

namespace sbx::keeper {

// The jail's command for these workspaces; `port_fd` is the connected files port, `control_fd` the server's end of a
// socket pair (FilesBarrier has the other). Data only: unit-testable.
// Each workspace is bound at /tmp/INDEX (nosuid, nodev, read-only where it is), and nothing else of the host but /usr
// and the program itself is there. The program keeps the caller's uid, since it writes the caller's files, but no
// capability.
inline constexpr const char* kWorkspacesInJail = "/tmp";  // there also while it holds none: more may come later
std::string place_in_jail(const Workspace& workspace);
Command files_server_command(const std::vector<Workspace>& workspaces, const std::filesystem::path& program,
                             int port_fd, int control_fd);

// Connects to the files port and starts the server on it; `control` becomes our end of its control socket. It dies with
// the calling thread.
Result<Subprocess> start_files_server(const LaunchSpec& spec, UniqueFd& control);

// The program beside our own.
Result<std::filesystem::path> sibling_program(std::string_view name);

}  // namespace sbx::keeper
