// What a client may mount into a sandbox, and where.
#pragma once

#include <filesystem>
#include <nlohmann/json_fwd.hpp>

#include "base/result.h"
#include "store/sandbox_store.h"

namespace sbx::sandbox {

// `entry` is a path, or {"path","target"?,"readonly"?}: the path on the host, and where it is mounted if that is not
// the same. kInvalid unless the path exists, a single file is read-only, the target hides nothing that the guest needs
// to run, and the path neither holds nor lies in `home` (sbx's own state: a guest that can write there owns every other
// sandbox).
Result<store::Workspace> check_workspace(const nlohmann::json& entry, const std::filesystem::path& home);

// An absolute path, without "." and trailing slashes.
Result<std::string> normal_path(const std::string& text);
// The same, that a workspace may be mounted at.
Result<std::string> check_target(const std::string& target);

// kConflict if one of the workspaces is at or below `target`, where a mount would hide it.
Result<void> check_hides_none(const std::string& target, const std::vector<store::Workspace>& workspaces);

}  // namespace sbx::sandbox
