// The jail that sbx-keeper-worker is started in. The second wall, which it builds itself before it reads the first byte
// of a guest's, is worker_lockdown.h.
#pragma once

#include <filesystem>
#include <optional>

#include "base/command.h"

namespace sbx::keeper {

// Everything that the worker has of the host; -1: none.
struct WorkerFds {
  int supervisor = -1;  // supervision.h
  int spec = -1;        // worker_spec.h
  int qmp = -1;
  int listener = -1;  // keeper.sock, listening
  int state = -1;     // what the machine's state is read from, or (a template's) written to
};

// No network, no file but the program and /usr (which it then gives up too), no process but itself; as root under a uid
// of its own, which is not QEMU's.
Command worker_command(const std::filesystem::path& program, const WorkerFds& fds, std::optional<unsigned> uid);

}  // namespace sbx::keeper
