// `sbx mount` and `sbx umount`: workspaces of a sandbox that is there already.
#include <iostream>
#include <nlohmann/json.hpp>

#include "cli/commands.h"
#include "cli/workspace_argument.h"

namespace sbx::cli {

using nlohmann::json;

Result<int> mount(const ApiClient& client, const std::string& sandbox, const std::string& workspace) {
  const auto argument = SBX_TRY(parse_workspace_argument(workspace), "reading the workspace");
  SBX_TRY(client.call("POST", sandbox_target(sandbox) + "/mounts", to_json(argument)), "mounting");
  std::cout << "Mounted " << argument.source << " at " << argument.target << (argument.readonly ? " (read-only)" : "")
            << "\n";
  return 0;
}

Result<int> umount(const ApiClient& client, const std::string& sandbox, const std::string& target, bool force) {
  const json body = {{"target", target}, {"force", force}};
  SBX_TRY(client.call("POST", sandbox_target(sandbox) + "/mounts/remove", body), "unmounting");
  std::cout << "Unmounted " << target << "\n";
  return 0;
}

}  // namespace sbx::cli
