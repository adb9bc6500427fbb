#include "sandbox/workspaces.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "sandbox/known_members.h"

namespace sbx::sandbox {
namespace {

using nlohmann::json;
namespace fs = std::filesystem;

bool is_within(const fs::path& inner, const fs::path& outer) {
  const auto relative = inner.lexically_relative(outer);
  return !relative.empty() && *relative.begin() != "..";
}

Result<std::string> optional_text(const json& entry, const char* key) {
  const auto found = entry.find(key);
  if (found == entry.end() || found->is_null()) return std::string();
  if (!found->is_string()) return fail(ErrorCode::kInvalid, std::string("a workspace's ") + key + " must be text");
  return found->get<std::string>();
}

}  // namespace

Result<std::string> normal_path(const std::string& text) {
  if (!text.starts_with('/')) return fail(ErrorCode::kInvalid, "\"" + text + "\" is not an absolute path");
  if (text.find('\0') != std::string::npos) return fail(ErrorCode::kInvalid, "a path cannot hold a NUL");
  fs::path path = fs::path(text).lexically_normal();
  if (path.filename().empty() && path != "/") path = path.parent_path();
  return path.native();
}

Result<std::string> check_target(const std::string& target) {
  const fs::path path = SBX_TRY(normal_path(target), "checking a mount's place");
  static const std::set<std::string> kExact = {
      "/",          "/etc",     "/usr",     "/bin",       "/sbin",    "/lib",       "/lib64",
      "/boot",      "/var",     "/home",    "/root",      "/opt",     "/tmp",       "/srv",
      "/mnt",       "/media",   "/usr/bin", "/usr/sbin",  "/usr/lib", "/usr/lib64", "/usr/libexec",
      "/usr/local", "/var/lib", "/var/run", "/home/agent"};
  bool reserved = kExact.contains(path.native());
  for (const char* tree : {"/proc", "/sys", "/dev", "/run", "/var/lib/docker", "/var/lib/containerd"})
    reserved = reserved || is_within(path, tree);
  if (reserved) {
    return fail(ErrorCode::kInvalid, "workspace " + path.native() +
                                         " would hide a system folder of the sandbox; mount a folder below it, or say "
                                         "where with SRC:DST");
  }
  return path.native();
}

Result<void> check_hides_none(const std::string& target, const std::vector<store::Workspace>& workspaces) {
  for (const auto& workspace : workspaces) {
    if (workspace.path == target)
      return fail(ErrorCode::kConflict,
                  workspace.on_host() + " is mounted at " + target + " already; unmount it first");
    if (is_within(workspace.path, target)) {
      return fail(ErrorCode::kConflict,
                  "a mount at " + target + " would hide the workspace at " + workspace.path + "; choose another place");
    }
  }
  return {};
}

Result<store::Workspace> check_workspace(const json& entry, const fs::path& home) {
  store::Workspace workspace;
  std::string source;
  std::string target;
  if (entry.is_string()) {
    source = entry.get<std::string>();
  } else if (entry.is_object() && entry.contains("path") && entry["path"].is_string()) {
    SBX_CHECK(only_members(entry, {"path", "target", "readonly"}), "reading a workspace");
    source = entry["path"].get<std::string>();
    target = SBX_TRY(optional_text(entry, "target"), "reading a workspace");
    if (const auto readonly = entry.find("readonly"); readonly != entry.end() && readonly->is_boolean())
      workspace.readonly = *readonly;
  } else {
    return fail(ErrorCode::kInvalid, "a workspace is a path, or an object with \"path\"");
  }
  const fs::path path = SBX_TRY(normal_path(source), "checking a workspace");
  std::error_code error;
  const auto status = fs::status(path, error);
  if (!fs::exists(status)) return fail(ErrorCode::kInvalid, "workspace " + path.native() + " does not exist");
  workspace.file = fs::is_regular_file(status);
  if (!workspace.file && !fs::is_directory(status))
    return fail(ErrorCode::kInvalid, "workspace " + path.native() + " is neither a folder nor a file");
  if (workspace.file && !workspace.readonly) {
    return fail(ErrorCode::kInvalid,
                "workspace " + path.native() + " is a single file, which can only be mounted read-only; append :ro");
  }
  workspace.path = SBX_TRY(check_target(target.empty() ? path.native() : target), "checking a workspace");
  // What is on the way now is resolved now: a link that is put there later is not followed (keeper/workspace_source.h).
  const fs::path real = fs::canonical(path, error);
  if (error) return fail(ErrorCode::kInvalid, "workspace " + path.native() + ": " + error.message());
  if (workspace.path != real) workspace.source = real.native();
  const fs::path real_home = fs::weakly_canonical(home, error);
  if (is_within(real_home, real) || is_within(real, real_home)) {
    return fail(ErrorCode::kInvalid, "workspace " + path.native() + " overlaps sbx's own state in " + home.native() +
                                         "; mount a folder below it, or move SBX_HOME");
  }
  return workspace;
}

}  // namespace sbx::sandbox
