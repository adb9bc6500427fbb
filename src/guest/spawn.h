// spawn(): a child of PID 1 in its own session, cgroup and identity. Single-threaded processes only (clone3 copies this
// one thread; the child then runs ordinary code until execve).
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"
#include "guest/exec_plan.h"
#include "guest/users.h"

namespace sbx::guest {

struct SpawnPlan {
  std::vector<std::string> argv;         // handed over verbatim, empty words too
  std::vector<std::string> candidates;   // program_candidates()
  std::vector<std::string> environment;  // whole
  std::string folder = "/";
  User user;
  int standard[3] = {-1, -1, -1};  // borrowed; -1 is /dev/null
  bool terminal = false;           // standard[0] becomes the controlling terminal
  bool privileged = false;         // all capabilities, kept over execve(2)
  int cgroup = -1;                 // borrowed folder fd; -1 stays in ours
  int listening = -1;              // borrowed socket, handed down as sd_listen_fds(3) has it; -1: none
};

// What the child says when it could not become the program.
struct SpawnReport {
  SpawnStage stage;
  int error_number;
};

struct Spawned {
  pid_t pid = -1;
  // End of file means that execve succeeded; else one SpawnReport, and the child exits. Non-blocking.
  UniqueFd report;
};

Result<Spawned> spawn(const SpawnPlan& plan);

}  // namespace sbx::guest
