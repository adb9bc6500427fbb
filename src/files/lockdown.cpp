#include "files/lockdown.h"

#include <fcntl.h>
#include <linux/landlock.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cerrno>

#include "base/lockdown.h"

namespace sbx::files {
namespace {

// Not in Debian 12's header: Landlock ABI 3 (Linux 6.2).
constexpr std::uint64_t kLandlockTruncate = 1U << 14U;
// ABI 2 is the first that allows renames between folders at all.
constexpr long kOldestLandlock = 2;

Result<void> confine_paths(const std::vector<Workspace>& workspaces, int late) {
  const long abi = ::syscall(SYS_landlock_create_ruleset, nullptr, 0, LANDLOCK_CREATE_RULESET_VERSION);
  if (abi < kOldestLandlock) return {};  // the jail's mounts confine just the same
  const std::uint64_t truncate = abi >= 3 ? kLandlockTruncate : 0;
  const std::uint64_t file_read = LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_EXECUTE;
  const std::uint64_t file_write = LANDLOCK_ACCESS_FS_WRITE_FILE | truncate;
  const std::uint64_t folder_write = LANDLOCK_ACCESS_FS_REMOVE_DIR | LANDLOCK_ACCESS_FS_REMOVE_FILE |
                                     LANDLOCK_ACCESS_FS_MAKE_DIR | LANDLOCK_ACCESS_FS_MAKE_REG |
                                     LANDLOCK_ACCESS_FS_MAKE_SOCK | LANDLOCK_ACCESS_FS_MAKE_FIFO |
                                     LANDLOCK_ACCESS_FS_MAKE_SYM | LANDLOCK_ACCESS_FS_REFER;
  landlock_ruleset_attr rules{};
  rules.handled_access_fs = file_read | file_write | folder_write | LANDLOCK_ACCESS_FS_READ_DIR |
                            LANDLOCK_ACCESS_FS_MAKE_CHAR | LANDLOCK_ACCESS_FS_MAKE_BLOCK;
  UniqueFd ruleset(static_cast<int>(::syscall(SYS_landlock_create_ruleset, &rules, sizeof(rules), 0)));
  if (!ruleset.valid()) return fail_errno("making a Landlock ruleset", errno);
  for (const auto& workspace : workspaces) {
    const bool folder = S_ISDIR(workspace.status.stx_mode);
    landlock_path_beneath_attr rule{};
    rule.parent_fd = workspace.root->get();
    rule.allowed_access = file_read;
    if (folder) rule.allowed_access |= LANDLOCK_ACCESS_FS_READ_DIR;
    if (!workspace.readonly) rule.allowed_access |= file_write | (folder ? folder_write : 0);
    if (::syscall(SYS_landlock_add_rule, ruleset.get(), LANDLOCK_RULE_PATH_BENEATH, &rule, 0) != 0) {
      return fail_errno("adding a workspace to the Landlock ruleset", errno);
    }
  }
  if (late >= 0) {
    landlock_path_beneath_attr rule{};
    rule.parent_fd = late;
    rule.allowed_access = file_read | file_write | folder_write | LANDLOCK_ACCESS_FS_READ_DIR;
    if (::syscall(SYS_landlock_add_rule, ruleset.get(), LANDLOCK_RULE_PATH_BENEATH, &rule, 0) != 0)
      return fail_errno("adding the folder of late workspaces to the Landlock ruleset", errno);
  }
  if (::syscall(SYS_landlock_restrict_self, ruleset.get(), 0) != 0) return fail_errno("entering Landlock", errno);
  return {};
}

constexpr std::array kFiles{
    SCMP_SYS(pread64),         SCMP_SYS(pwrite64),        SCMP_SYS(pwritev2),  SCMP_SYS(open),
    SCMP_SYS(openat),          SCMP_SYS(openat2),         SCMP_SYS(statx),     SCMP_SYS(newfstatat),
    SCMP_SYS(fstat),           SCMP_SYS(fstatfs),         SCMP_SYS(readlink),  SCMP_SYS(readlinkat),
    SCMP_SYS(getdents64),      SCMP_SYS(mkdirat),         SCMP_SYS(symlinkat), SCMP_SYS(linkat),
    SCMP_SYS(unlinkat),        SCMP_SYS(renameat),        SCMP_SYS(renameat2), SCMP_SYS(truncate),
    SCMP_SYS(ftruncate),       SCMP_SYS(fallocate),       SCMP_SYS(utimensat), SCMP_SYS(fsync),
    SCMP_SYS(fdatasync),       SCMP_SYS(getxattr),        SCMP_SYS(setxattr),  SCMP_SYS(listxattr),
    SCMP_SYS(removexattr),     SCMP_SYS(copy_file_range), SCMP_SYS(preadv2),   SCMP_SYS(inotify_add_watch),
    SCMP_SYS(inotify_rm_watch)};

Result<void> confine_system_calls() {
  SystemCallFilter filter;
  filter.allow(kEventLoopCalls);
  filter.allow(kThreadCalls);
  filter.allow(kFiles);
  filter.allow_if(SCMP_SYS(ioctl), argument_is(1, FIONBIO));
  // Threads, never processes. The flags of clone3(2) are out of a filter's sight; the C library then takes clone(2).
  filter.allow_if(SCMP_SYS(clone), argument_is_masked(0, CLONE_THREAD | CLONE_VM, CLONE_THREAD | CLONE_VM));
  filter.refuse(SCMP_SYS(clone3), ENOSYS);
  // Never a device node, never a setuid bit.
  for (const auto type : {S_IFREG, S_IFIFO, S_IFSOCK}) {
    filter.allow_if(SCMP_SYS(mknodat), argument_is_masked(2, S_IFMT | S_ISUID, type));
  }
  filter.allow_if(SCMP_SYS(chmod), argument_is_masked(1, S_ISUID, 0));
  filter.allow_if(SCMP_SYS(fchmodat), argument_is_masked(2, S_ISUID, 0));
  return filter.load();
}

}  // namespace

Result<void> lock_down(const std::vector<Workspace>& workspaces, int late) {
  SBX_CHECK(give_up_privileges(), "locking down");
  SBX_CHECK(confine_paths(workspaces, late), "locking down");
  return confine_system_calls();
}

}  // namespace sbx::files
