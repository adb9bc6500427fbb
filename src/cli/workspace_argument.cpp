#include "cli/workspace_argument.h"

#include <filesystem>
#include <nlohmann/json.hpp>

namespace sbx::cli {

namespace fs = std::filesystem;

Result<WorkspaceArgument> parse_workspace_argument(const std::string& text) {
  WorkspaceArgument argument;
  std::string path = text;
  argument.readonly = path.ends_with(":ro");
  if (argument.readonly) path.resize(path.size() - 3);
  std::error_code error;
  if (const auto colon = path.rfind(':'); !fs::exists(path, error) && colon != std::string::npos && colon > 0) {
    argument.target = path.substr(colon + 1);
    path.resize(colon);
    if (!argument.target.starts_with('/')) {
      return fail(ErrorCode::kInvalid,
                  "in " + text + ", \"" + argument.target + "\" is neither an absolute path in the sandbox nor \"ro\"");
    }
  }
  const auto real = fs::canonical(path, error);
  if (error) return fail(ErrorCode::kInvalid, "workspace " + path + " does not exist");
  argument.source = real;
  if (argument.target.empty()) argument.target = argument.source;
  return argument;
}

nlohmann::json to_json(const WorkspaceArgument& argument) {
  return {{"path", argument.source}, {"target", argument.target}, {"readonly", argument.readonly}};
}

}  // namespace sbx::cli
