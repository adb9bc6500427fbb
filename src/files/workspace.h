// A workspace as the server holds it: an O_PATH fd of its root, which stays the same file for the process's life.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "files/confined.h"

namespace sbx::files {

struct WorkspaceSpec {
  unsigned index = 0;
  std::string path;
  bool readonly = false;
  SharedFd opened = {};  // the file that `path` must lead to, if that is known
};

// "INDEX:PATH" or "INDEX:PATH:ro", as on sbx-files' command line.
Result<WorkspaceSpec> parse_workspace(std::string_view text);

struct Workspace {
  unsigned index = 0;
  bool readonly = false;
  SharedFd root;
  struct statx status {};
  std::string location;  // where the root was when it was opened

  // Where `fd` is now, relative to the root ("" for itself); nothing if it is elsewhere. " (deleted)" ends the path of
  // a file that has lost the name by which it was opened.
  std::optional<std::string> place_of(int fd) const;
  // Whether `fd` is at or below the root now. A folder that the user moves out of the workspace is out of the guest's
  // reach from then on, even where the server still holds its fd.
  bool holds(int fd) const { return place_of(fd).has_value(); }
  // False once its mount was taken out of the jail: nothing of it is served any more.
  bool attached() const;
};

// Fails unless the path is a folder or a regular file; kDenied unless it is the one that was opened.
Result<Workspace> open_workspace(const WorkspaceSpec& spec);

// What was mounted at `folder`/INDEX after the start; kNotFound if nothing is. Read-only if the mount is.
Result<Workspace> open_late_workspace(int folder, unsigned index);

}  // namespace sbx::files
