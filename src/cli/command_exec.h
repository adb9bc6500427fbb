// The command line of `sbx exec`, parsed. Pure.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"

namespace sbx::cli {

struct ExecArguments {
  enum class Action { kRun, kList, kWait, kLogs, kHelp } action = Action::kRun;
  std::string sandbox;
  std::vector<std::string> argv;
  std::vector<std::string> env;
  std::string exec_id;
  std::string user;
  std::string workdir;
  bool tty = false;
  bool interactive = false;
  bool detach = false;
  bool privileged = false;
  bool follow = false;
  bool json = false;
};

// Flags up to the sandbox's name are exec's own (and those right behind it, before the command's first word); a `--`
// before the command is dropped; everything from the command on is kept as it is.
Result<ExecArguments> parse_exec(const std::vector<std::string>& arguments);

}  // namespace sbx::cli
