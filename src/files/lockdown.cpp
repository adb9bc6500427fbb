#include "files/lockdown.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <linux/landlock.h>
#include <sched.h>
#include <seccomp.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <memory>

namespace sbx::files {
namespace {

// Not in Debian 12's header: Landlock ABI 3 (Linux 6.2).
constexpr std::uint64_t kLandlockTruncate = 1U << 14U;
// ABI 2 is the first that allows renames between folders at all.
constexpr long kOldestLandlock = 2;

Result<void> drop_capabilities() {
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  std::array<__user_cap_data_struct, _LINUX_CAPABILITY_U32S_3> none{};
  if (::syscall(SYS_capset, &header, none.data()) != 0) return fail_errno("dropping capabilities", errno);
  return {};
}

Result<void> confine_paths(const std::vector<Workspace>& workspaces) {
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
  if (::syscall(SYS_landlock_restrict_self, ruleset.get(), 0) != 0) return fail_errno("entering Landlock", errno);
  return {};
}

// The C library's and the event loop's needs.
constexpr std::array kRuntime{SCMP_SYS(brk),
                              SCMP_SYS(mmap),
                              SCMP_SYS(munmap),
                              SCMP_SYS(mremap),
                              SCMP_SYS(madvise),
                              SCMP_SYS(mprotect),
                              SCMP_SYS(futex),
                              SCMP_SYS(exit),
                              SCMP_SYS(exit_group),
                              SCMP_SYS(rt_sigreturn),
                              SCMP_SYS(rt_sigaction),
                              SCMP_SYS(rt_sigprocmask),
                              SCMP_SYS(sigaltstack),
                              SCMP_SYS(clock_gettime),
                              SCMP_SYS(clock_nanosleep),
                              SCMP_SYS(restart_syscall),
                              SCMP_SYS(getpid),
                              SCMP_SYS(gettid),
                              SCMP_SYS(tgkill),
                              SCMP_SYS(getrandom),
                              SCMP_SYS(sched_yield),
                              SCMP_SYS(epoll_create1),
                              SCMP_SYS(epoll_ctl),
                              SCMP_SYS(epoll_wait),
                              SCMP_SYS(epoll_pwait),
                              SCMP_SYS(eventfd2),
                              SCMP_SYS(timerfd_create),
                              SCMP_SYS(timerfd_settime),
                              SCMP_SYS(poll),
                              SCMP_SYS(ppoll),
                              SCMP_SYS(fcntl),
                              SCMP_SYS(rseq),
                              SCMP_SYS(getuid),
                              SCMP_SYS(geteuid),
                              SCMP_SYS(getgid),
                              SCMP_SYS(getegid),
                              SCMP_SYS(set_robust_list),
                              SCMP_SYS(sched_getaffinity)};

constexpr std::array kFiles{SCMP_SYS(read),
                            SCMP_SYS(readv),
                            SCMP_SYS(write),
                            SCMP_SYS(writev),
                            SCMP_SYS(pread64),
                            SCMP_SYS(pwrite64),
                            SCMP_SYS(pwritev2),
                            SCMP_SYS(open),
                            SCMP_SYS(openat),
                            SCMP_SYS(openat2),
                            SCMP_SYS(close),
                            SCMP_SYS(statx),
                            SCMP_SYS(newfstatat),
                            SCMP_SYS(fstat),
                            SCMP_SYS(fstatfs),
                            SCMP_SYS(readlink),
                            SCMP_SYS(readlinkat),
                            SCMP_SYS(getdents64),
                            SCMP_SYS(lseek),
                            SCMP_SYS(mkdirat),
                            SCMP_SYS(symlinkat),
                            SCMP_SYS(linkat),
                            SCMP_SYS(unlinkat),
                            SCMP_SYS(renameat),
                            SCMP_SYS(renameat2),
                            SCMP_SYS(truncate),
                            SCMP_SYS(ftruncate),
                            SCMP_SYS(fallocate),
                            SCMP_SYS(utimensat),
                            SCMP_SYS(fsync),
                            SCMP_SYS(fdatasync),
                            SCMP_SYS(getxattr),
                            SCMP_SYS(setxattr),
                            SCMP_SYS(listxattr),
                            SCMP_SYS(removexattr),
                            SCMP_SYS(copy_file_range),
                            SCMP_SYS(preadv2),
                            SCMP_SYS(inotify_add_watch),
                            SCMP_SYS(inotify_rm_watch)};

struct ReleaseFilter {
  void operator()(void* filter) const { seccomp_release(filter); }
};

Result<void> confine_system_calls() {
  std::unique_ptr<void, ReleaseFilter> filter(seccomp_init(SCMP_ACT_ERRNO(EPERM)));
  if (filter == nullptr) return fail(ErrorCode::kInternal, "seccomp_init failed");
  int error = 0;
  const auto allow = [&](int call) {
    if (error == 0) error = seccomp_rule_add_array(filter.get(), SCMP_ACT_ALLOW, call, 0, nullptr);
  };
  const auto allow_if = [&](int call, scmp_arg_cmp condition) {
    if (error == 0) error = seccomp_rule_add_array(filter.get(), SCMP_ACT_ALLOW, call, 1, &condition);
  };
  for (const int call : kRuntime) allow(call);
  for (const int call : kFiles) allow(call);
  allow_if(SCMP_SYS(ioctl), SCMP_A1(SCMP_CMP_EQ, FIONBIO));
  // Threads, never processes. The flags of clone3(2) are out of a filter's sight; the C library then takes clone(2).
  allow_if(SCMP_SYS(clone), SCMP_A0(SCMP_CMP_MASKED_EQ, CLONE_THREAD | CLONE_VM, CLONE_THREAD | CLONE_VM));
  if (error == 0) error = seccomp_rule_add_array(filter.get(), SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0, nullptr);
  // Never a device node, never a setuid bit.
  for (const auto type : {S_IFREG, S_IFIFO, S_IFSOCK}) {
    allow_if(SCMP_SYS(mknodat), SCMP_A2(SCMP_CMP_MASKED_EQ, S_IFMT | S_ISUID, static_cast<scmp_datum_t>(type)));
  }
  allow_if(SCMP_SYS(chmod), SCMP_A1(SCMP_CMP_MASKED_EQ, S_ISUID, 0));
  allow_if(SCMP_SYS(fchmodat), SCMP_A2(SCMP_CMP_MASKED_EQ, S_ISUID, 0));
  if (error == 0) error = seccomp_load(filter.get());
  if (error != 0) return fail_errno("loading the system call filter", -error);
  return {};
}

}  // namespace

Result<void> lock_down(const std::vector<Workspace>& workspaces) {
  if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return fail_errno("prctl(PR_SET_NO_NEW_PRIVS)", errno);
  SBX_CHECK(drop_capabilities(), "locking down");
  SBX_CHECK(confine_paths(workspaces), "locking down");
  return confine_system_calls();
}

}  // namespace sbx::files
