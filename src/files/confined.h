// The system calls by which host files are reached, and the only ones: one component at a time, relative to a folder's
// O_PATH fd, never through a symlink, a magic link or "..". An O_PATH fd opens nothing by itself, so what it names can
// be looked at before anything is opened for I/O.
// Thread safety: any thread.
#pragma once

#include <sys/stat.h>

#include <memory>
#include <string>
#include <string_view>

#include "base/unique_fd.h"
#include "files/message.h"

namespace sbx::files {

using SharedFd = std::shared_ptr<const UniqueFd>;

// O_PATH fd of the entry `name` of `folder`, of a symlink itself too. `name` has passed check_name().
Outcome<UniqueFd> open_child(int folder, const std::string& name);

// Creates `name` as a regular file (O_EXCL: whatever exists is EEXIST and is not touched) and opens it.
Outcome<UniqueFd> create_child(int folder, const std::string& name, int access_mode, mode_t mode);

// Opens what an O_PATH fd names, by way of /proc/self/fd. The caller has checked that it is a regular file or a
// folder: anything else may block or act on being opened.
Outcome<UniqueFd> reopen(int path_fd, int flags);

// "/proc/self/fd/N", for system calls that take no fd.
std::string descriptor_path(int fd);

// Where the kernel says that the fd is now.
Outcome<std::string> location_of(int fd);

Outcome<struct statx> status_of(int fd);
dev_t device_of(const struct statx& status);

}  // namespace sbx::files
