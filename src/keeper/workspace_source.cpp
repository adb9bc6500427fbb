#include "keeper/workspace_source.h"

#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>

namespace sbx::keeper {

Result<UniqueFd> open_source(const Workspace& workspace) {
  open_how how{};
  how.flags = O_PATH | O_CLOEXEC;
  how.resolve = RESOLVE_NO_SYMLINKS;
  long fd = -1;
  do {
    fd = ::syscall(SYS_openat2, AT_FDCWD, workspace.source.c_str(), &how, sizeof(how));
  } while (fd < 0 && errno == EINTR);
  if (fd >= 0) return UniqueFd(static_cast<int>(fd));
  if (errno == ELOOP) {
    return fail(ErrorCode::kDenied,
                "workspace " + workspace.source +
                    " is behind a symbolic link that was not there when the sandbox was given it, and is not followed; "
                    "put the folder back, or make another sandbox with the place that you mean");
  }
  return fail_errno("opening workspace " + workspace.source, errno);
}

}  // namespace sbx::keeper
