#include "gateway/lockdown.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <seccomp.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <memory>

namespace sbx::gateway {
namespace {

Result<void> drop_privileges() {
  if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return fail_errno("prctl(PR_SET_NO_NEW_PRIVS)", errno);
  if (::prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0) return fail_errno("prctl(PR_SET_DUMPABLE)", errno);
  const rlimit none{0, 0};
  if (::setrlimit(RLIMIT_CORE, &none) != 0) return fail_errno("setrlimit(RLIMIT_CORE)", errno);
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  std::array<__user_cap_data_struct, _LINUX_CAPABILITY_U32S_3> empty{};
  if (::syscall(SYS_capset, &header, empty.data()) != 0) return fail_errno("dropping capabilities", errno);
  return {};
}

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
                              SCMP_SYS(uname),
                              SCMP_SYS(sysinfo),
                              SCMP_SYS(gettimeofday),
                              SCMP_SYS(time),
                              SCMP_SYS(sched_getaffinity),
                              SCMP_SYS(set_robust_list)};

// Reading what the resolver reads; nothing is opened for writing (below).
constexpr std::array kFiles{SCMP_SYS(read),  SCMP_SYS(readv),      SCMP_SYS(write),  SCMP_SYS(writev),
                            SCMP_SYS(close), SCMP_SYS(newfstatat), SCMP_SYS(fstat),  SCMP_SYS(statx),
                            SCMP_SYS(lseek), SCMP_SYS(pread64),    SCMP_SYS(access), SCMP_SYS(stat)};

constexpr std::array kNetwork{SCMP_SYS(connect),    SCMP_SYS(accept4),    SCMP_SYS(accept),      SCMP_SYS(shutdown),
                              SCMP_SYS(getsockopt), SCMP_SYS(setsockopt), SCMP_SYS(getsockname), SCMP_SYS(getpeername),
                              SCMP_SYS(sendto),     SCMP_SYS(recvfrom),   SCMP_SYS(sendmsg),     SCMP_SYS(recvmsg),
                              SCMP_SYS(sendmmsg),   SCMP_SYS(bind)};

struct ReleaseFilter {
  void operator()(void* filter) const { seccomp_release(filter); }
};

Result<void> confine_system_calls() {
  std::unique_ptr<void, ReleaseFilter> filter(seccomp_init(SCMP_ACT_ERRNO(EPERM)));
  if (filter == nullptr) return fail(ErrorCode::kInternal, "seccomp_init failed");
  int error = seccomp_attr_set(filter.get(), SCMP_FLTATR_CTL_TSYNC, 1);
  const auto allow = [&](int call) {
    if (error == 0) error = seccomp_rule_add_array(filter.get(), SCMP_ACT_ALLOW, call, 0, nullptr);
  };
  const auto allow_if = [&](int call, scmp_arg_cmp condition) {
    if (error == 0) error = seccomp_rule_add_array(filter.get(), SCMP_ACT_ALLOW, call, 1, &condition);
  };
  for (const int call : kRuntime) allow(call);
  for (const int call : kFiles) allow(call);
  for (const int call : kNetwork) allow(call);
  for (const int request : {FIONBIO, FIONREAD}) {
    allow_if(SCMP_SYS(ioctl), SCMP_A1(SCMP_CMP_EQ, static_cast<scmp_datum_t>(request)));
  }
  for (const int family : {AF_INET, AF_INET6}) {
    allow_if(SCMP_SYS(socket), SCMP_A0(SCMP_CMP_EQ, static_cast<scmp_datum_t>(family)));
  }
  allow_if(SCMP_SYS(open), SCMP_A1(SCMP_CMP_MASKED_EQ, O_ACCMODE | O_CREAT | O_TRUNC, O_RDONLY));
  allow_if(SCMP_SYS(openat), SCMP_A2(SCMP_CMP_MASKED_EQ, O_ACCMODE | O_CREAT | O_TRUNC, O_RDONLY));
  if (error == 0) error = seccomp_load(filter.get());
  if (error != 0) return fail_errno("loading the system call filter", -error);
  return {};
}

}  // namespace

Result<void> lock_down() {
  SBX_CHECK(drop_privileges(), "locking down");
  return confine_system_calls();
}

}  // namespace sbx::gateway
