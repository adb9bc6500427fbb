// The command tree (CLI11 lives in command_line.cpp only).
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "cli/commands.h"

namespace sbx::cli {

struct CommandLine {
  std::string app_name;
  bool debug = false;
  bool json = false;  // errors go out as JSON too
  int failure = 1;    // exit status for an Error: 125 for exec
  std::function<Result<int>(const ApiClient&)> action;
  int exit_status = -1;  // 0 or more: parsing was all there was to do (help, or a mistake already told)
};

CommandLine parse_command_line(const std::vector<std::string>& argv);

}  // namespace sbx::cli
