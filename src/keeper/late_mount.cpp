#include "keeper/late_mount.h"

#include <fcntl.h>
#include <linux/mount.h>
#include <linux/nsfs.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <functional>
#include <string>

#include "base/file.h"
#include "keeper/files_server.h"
#include "keeper/workspace_source.h"
#include "vm/jail.h"

namespace sbx::keeper {
namespace {

struct Namespaces {
  UniqueFd mounts;
  UniqueFd users;  // that owns the mounts
};

Result<Namespaces> namespaces_of(pid_t bubblewrap) {
  const pid_t pid = SBX_TRY(vm::jailed_pid(bubblewrap), "finding the jail");
  Namespaces result;
  result.mounts = SBX_TRY(open_file("/proc/" + std::to_string(pid) + "/ns/mnt", O_RDONLY), "finding the jail");
  result.users.reset(::ioctl(result.mounts.get(), NS_GET_USERNS));
  if (!result.users.valid()) return fail_errno("finding the owner of the jail's mounts", errno);
  return result;
}

// Runs `step` in a child, whose namespaces it may change; its error comes back as text.
Result<void> in_child(const std::function<Result<void>()>& step) {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) return fail_errno("making a pipe", errno);
  const UniqueFd read(ends[0]);
  UniqueFd write(ends[1]);
  const pid_t pid = ::fork();
  if (pid < 0) return fail_errno("fork", errno);
  if (pid == 0) {
    if (const auto result = step(); !result) {
      (void)write_all(write.get(), result.error().message);
      ::_exit(1);
    }
    ::_exit(0);
  }
  write.reset();
  std::string message;
  char piece[512];
  for (ssize_t got = 0; (got = ::read(read.get(), piece, sizeof piece)) > 0 || (got < 0 && errno == EINTR);) {
    if (got > 0) message.append(piece, static_cast<std::size_t>(got));
  }
  int status = 0;
  while (::waitpid(pid, &status, 0) < 0 && errno == EINTR) {
  }
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return {};
  return fail(ErrorCode::kInternal, message.empty() ? "the helper ended early" : message);
}

Result<UniqueFd> clone_tree(const Workspace& workspace) {
  const auto source = SBX_TRY(open_source(workspace), "looking for what is to be mounted");
  UniqueFd tree(static_cast<int>(
      ::syscall(SYS_open_tree, source.get(), "", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH | AT_RECURSIVE)));
  if (!tree.valid()) return fail_errno("opening " + workspace.source, errno);
  mount_attr attributes{};
  attributes.attr_set = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | (workspace.readonly ? MOUNT_ATTR_RDONLY : 0);
  if (::syscall(SYS_mount_setattr, tree.get(), "", AT_EMPTY_PATH | AT_RECURSIVE, &attributes, sizeof attributes) != 0)
    return fail_errno("setting the rights of the mount of " + workspace.source, errno);
  return tree;
}

Result<void> make_place(const Workspace& workspace) {
  const std::string place = place_in_jail(workspace);
  if (workspace.file) {
    SBX_TRY(open_file(place, O_WRONLY | O_CREAT | O_NOFOLLOW, 0600), "making the place of a mount");
  } else if (::mkdir(place.c_str(), 0700) != 0 && errno != EEXIST) {
    return fail_errno("making the place of a mount", errno);
  }
  return {};
}

}  // namespace

Result<void> mount_into_jail(pid_t bubblewrap, const Workspace& workspace) {
  SBX_TRY(open_source(workspace), "mounting");  // here for the sake of the error's code
  const auto jail = SBX_TRY(namespaces_of(bubblewrap), "mounting " + workspace.source);
  return in_child([&]() -> Result<void> {
    if (::setns(jail.users.get(), CLONE_NEWUSER) != 0) return fail_errno("entering the jail's user namespace", errno);
    if (::unshare(CLONE_NEWNS) != 0) return fail_errno("copying the host's mounts", errno);
    const auto tree = SBX_TRY(clone_tree(workspace), "mounting");
    if (::setns(jail.mounts.get(), CLONE_NEWNS) != 0) return fail_errno("entering the jail", errno);
    SBX_CHECK(make_place(workspace), "mounting");
    if (::syscall(SYS_move_mount, tree.get(), "", AT_FDCWD, place_in_jail(workspace).c_str(),
                  MOVE_MOUNT_F_EMPTY_PATH) != 0)
      return fail_errno("mounting " + workspace.source + " in the jail", errno);
    return {};
  });
}

Result<void> unmount_from_jail(pid_t bubblewrap, const Workspace& workspace) {
  const auto jail = SBX_TRY(namespaces_of(bubblewrap), "unmounting " + workspace.source);
  return in_child([&]() -> Result<void> {
    if (::setns(jail.users.get(), CLONE_NEWUSER) != 0) return fail_errno("entering the jail's user namespace", errno);
    if (::setns(jail.mounts.get(), CLONE_NEWNS) != 0) return fail_errno("entering the jail", errno);
    const std::string place = place_in_jail(workspace);
    if (::umount2(place.c_str(), MNT_DETACH | UMOUNT_NOFOLLOW) != 0 && errno != EINVAL)
      return fail_errno("unmounting " + workspace.source, errno);
    if (workspace.file)
      ::unlink(place.c_str());
    else
      ::rmdir(place.c_str());
    return {};
  });
}

}  // namespace sbx::keeper
