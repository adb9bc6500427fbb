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

struct FilesServerFds {
  int port = -1;     // the connected files port
  int control = -1;  // the server's end of a socket pair (FilesBarrier has the other)
  int journal = -1;  // files that the server writes down changes in
  int before = -1;
  std::vector<int> sources;  // what each of the spec's workspaces is (open_source)
};

// The jail's command for the spec's workspaces and protection. Data only: unit-testable.
// Each workspace is bound at /tmp/INDEX (nosuid, nodev, read-only where it is), and nothing else of the host but /usr
// and the program itself is there. bubblewrap binds by path; the program ends at once if that has led to anything but
// what was opened. It keeps the caller's uid, since it writes the caller's files, but no capability.
inline constexpr const char* kWorkspacesInJail = "/tmp";  // there also while it holds none: more may come later
std::string place_in_jail(const Workspace& workspace);
Command files_server_command(const LaunchSpec& spec, const std::filesystem::path& program, const FilesServerFds& fds);

// Connects to the files port and starts the server on it; `control` becomes our end of its control socket. It dies with
// the calling thread. kDenied if a workspace has got behind a symbolic link.
Result<Subprocess> start_files_server(const LaunchSpec& spec, UniqueFd& control);

// The program beside our own.
Result<std::filesystem::path> sibling_program(std::string_view name);

}  // namespace sbx::keeper
