// What people write on the command line, read. Pure.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"

namespace sbx::cli {

// "512m", "8g", "2GiB", "1073741824" (bytes): in MiB, binary units.
Result<std::int64_t> parse_memory(std::string_view text);

// --env and --env-file in order: later wins, --env over files; a bare KEY takes the host's value, or is left out.
Result<std::vector<std::string>> read_environment(const std::vector<std::string>& files,
                                                  const std::vector<std::string>& values);

// Where the COMMAND of `exec` (or the `--` of `run`) begins: arguments for sbx and, verbatim, those for the command.
std::pair<std::vector<std::string>, std::vector<std::string>> split_command(const std::vector<std::string>& argv);

}  // namespace sbx::cli
