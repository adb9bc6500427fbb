// SRC[:DST][:ro], as on the command line of create, run and mount.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "base/result.h"

namespace sbx::cli {

struct WorkspaceArgument {
  std::string source;  // on the host, absolute, without symbolic links
  std::string target;  // in the sandbox, absolute
  bool readonly = false;
};

// A path that exists is taken as it is, whatever colons it has; else the last ":/" begins DST. kInvalid if the source
// does not exist or DST is not absolute.
Result<WorkspaceArgument> parse_workspace_argument(const std::string& text);
// As the API has it.
nlohmann::json to_json(const WorkspaceArgument& argument);

}  // namespace sbx::cli
