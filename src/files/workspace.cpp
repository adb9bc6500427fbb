#include "files/workspace.h"

#include <fcntl.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>

#include <charconv>

#include "base/file.h"

namespace sbx::files {

Result<WorkspaceSpec> parse_workspace(std::string_view text) {
  WorkspaceSpec spec;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), spec.index);
  if (error != std::errc() || end == text.data() + text.size() || *end != ':') {
    return fail(ErrorCode::kInvalid,
                "--workspace must be INDEX:PATH or INDEX:PATH:ro, not \"" + std::string(text) + "\"");
  }
  std::string_view path(end + 1, static_cast<std::size_t>(text.data() + text.size() - end - 1));
  if (path.ends_with(":ro")) {
    spec.readonly = true;
    path.remove_suffix(3);
  }
  if (!path.starts_with('/')) {
    return fail(ErrorCode::kInvalid, "a workspace's path must be absolute, not \"" + std::string(path) + "\"");
  }
  spec.path = path;
  return spec;
}

Result<Workspace> open_workspace(const WorkspaceSpec& spec) {
  auto fd = SBX_TRY(open_file(spec.path, O_PATH), "opening workspace " + std::to_string(spec.index));
  const auto status = status_of(fd.get());
  if (!status) return fail_errno("looking at workspace " + spec.path, status.error());
  if (!S_ISDIR(status->stx_mode) && !S_ISREG(status->stx_mode)) {
    return fail(ErrorCode::kInvalid, "workspace " + spec.path + " is neither a folder nor a regular file");
  }
  if (spec.opened) {
    const auto meant = status_of(spec.opened->get());
    if (!meant) return fail_errno("looking at workspace " + spec.path, meant.error());
    if (device_of(*meant) != device_of(*status) || meant->stx_ino != status->stx_ino)
      return fail(ErrorCode::kDenied, "workspace " + spec.path + " has become another while it was being mounted");
  }
  const auto location = location_of(fd.get());
  if (!location) return fail_errno("finding the place of workspace " + spec.path, location.error());
  Workspace workspace;
  workspace.index = spec.index;
  workspace.readonly = spec.readonly;
  workspace.root = std::make_shared<const UniqueFd>(std::move(fd));
  workspace.status = *status;
  workspace.location = *location;
  return workspace;
}

std::optional<std::string> Workspace::place_of(int fd) const {
  const auto place = location_of(fd);
  if (!place) return std::nullopt;
  const auto beneath = [&](const std::string& top) -> std::optional<std::string> {
    if (!place->starts_with(top)) return std::nullopt;
    if (place->size() == top.size()) return "";
    if (top == "/") return place->substr(1);
    if ((*place)[top.size()] != '/') return std::nullopt;
    return place->substr(top.size() + 1);
  };
  if (auto found = beneath(location)) {
    // Taken out of the jail, its paths begin at its own root, and there may be folders of these names below that. Asked
    // after the path was: one that is attached now was so then.
    return attached() ? found : std::nullopt;
  }
  // Outside, unless the workspace as a whole has moved.
  const auto top = location_of(root->get());
  if (top && *top == "/" && location != "/") return std::nullopt;  // taken out of the jail
  return top && *top != location ? beneath(*top) : std::nullopt;
}

bool Workspace::attached() const {
  const auto top = location_of(root->get());
  return top && (*top != "/" || location == "/");
}

Result<Workspace> open_late_workspace(int folder, unsigned index) {
  UniqueFd fd(::openat(folder, std::to_string(index).c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
  if (!fd.valid()) return fail_errno("opening workspace " + std::to_string(index), errno);
  const auto status = status_of(fd.get());
  // Without a mount it is a place that one was taken from.
  if (!status || (status->stx_attributes & STATX_ATTR_MOUNT_ROOT) == 0)
    return fail(ErrorCode::kNotFound, "nothing is mounted as workspace " + std::to_string(index));
  if (!S_ISDIR(status->stx_mode) && !S_ISREG(status->stx_mode))
    return fail(ErrorCode::kInvalid, "workspace " + std::to_string(index) + " is neither a folder nor a regular file");
  struct statfs system {};
  if (::fstatfs(fd.get(), &system) != 0) return fail_errno("looking at workspace " + std::to_string(index), errno);
  const auto location = location_of(fd.get());
  if (!location) return fail_errno("finding the place of workspace " + std::to_string(index), location.error());
  Workspace workspace;
  workspace.index = index;
  workspace.readonly = (static_cast<unsigned long>(system.f_flags) & ST_RDONLY) != 0;
  workspace.root = std::make_shared<const UniqueFd>(std::move(fd));
  workspace.status = *status;
  workspace.location = *location;
  return workspace;
}

}  // namespace sbx::files
