// What POST /exec asks for, and what follows from it: environment, candidates for execve, the words of a failure.
// Pure; any thread.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "guest/users.h"

namespace sbx::guest {

// docs/development/protocols.md, ExecHead.
struct ExecHead {
  std::string id;
  std::vector<std::string> argv;
  std::vector<std::string> env;
  std::string cwd;
  std::string user;
  bool tty = false;
  unsigned short rows = 24;
  unsigned short cols = 80;
  std::uint64_t files_seen = 0;  // notifications of the file server to wait for
  bool privileged = false;       // all capabilities, whoever the user is
};

// kInvalid if it is not JSON of that shape, argv is empty, a string holds a NUL or the id is not [A-Za-z0-9._-]{1,64}.
Result<ExecHead> parse_exec_head(std::string_view json);

// Sets or replaces K in a list of "K=V"; an assignment without '=' removes K.
void assign(std::vector<std::string>& environment, std::string_view assignment);
// The value of `key`, or empty.
std::string value_of(const std::vector<std::string>& environment, std::string_view key);

// The defaults for `user`, then each of /etc/environment's lines (`system`), the identity's, and the head's.
std::vector<std::string> build_environment(const User& user, bool tty, std::string_view system,
                                           const std::vector<std::string>& identity,
                                           const std::vector<std::string>& head);

// What execve is to be tried on, in order: the program itself if it has a slash, else one path per entry of PATH.
std::vector<std::string> program_candidates(std::string_view program, std::string_view path);

// Where a child failed between its start and execve(2).
enum class SpawnStage : int { kSetup = 1, kUser = 2, kFolder = 3, kProgram = 4 };

struct ExecFailure {
  int exit_code = 127;
  std::string message;
};
// Docker's exit code and words for it.
ExecFailure describe_failure(SpawnStage stage, int error_number, const ExecHead& head, std::string_view cwd);

// ExecStatus as JSON.
// `out_of_memory`: the kernel has killed a process of the command for want of memory.
std::string exec_status_json(int wait_status, bool out_of_memory);
std::string exec_status_json(const ExecFailure& failure);

}  // namespace sbx::guest
