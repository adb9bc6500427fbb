// WorkerSpec: what the supervisor tells its worker at the start, before the worker gives up its rights. A plain value;
// of the launch spec only what the guest is told, and no host path but those of the workspaces.
#pragma once

#include <sys/types.h>

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"
#include "keeper/launch_spec.h"

namespace sbx::keeper {

struct WorkerSpec {
  LaunchMode mode = LaunchMode::kClone;
  std::string sandbox_id;
  vm::Accelerator accelerator = vm::Accelerator::kTcg;
  int qemu_major = 0;
  pid_t supervisor_pid = 0;
  bool spare = false;
  nlohmann::json identity = nlohmann::json::object();
  std::vector<Workspace> workspaces;
};

// As a descriptor to be inherited, at its beginning.
Result<UniqueFd> write_worker_spec(const WorkerSpec& spec);
Result<WorkerSpec> read_worker_spec(int fd);

}  // namespace sbx::keeper
