#include "base/lockdown.h"

#include <linux/capability.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cerrno>

namespace sbx {
namespace {

constexpr std::array kEventLoop{SCMP_SYS(brk),
                                SCMP_SYS(munmap),
                                SCMP_SYS(mremap),
                                SCMP_SYS(madvise),
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
                                SCMP_SYS(rseq),
                                SCMP_SYS(read),
                                SCMP_SYS(readv),
                                SCMP_SYS(write),
                                SCMP_SYS(writev),
                                SCMP_SYS(lseek),
                                SCMP_SYS(close)};

constexpr std::array kThreads{
    SCMP_SYS(mmap),    SCMP_SYS(mprotect), SCMP_SYS(tgkill),  SCMP_SYS(fcntl),           SCMP_SYS(getuid),
    SCMP_SYS(geteuid), SCMP_SYS(getgid),   SCMP_SYS(getegid), SCMP_SYS(set_robust_list), SCMP_SYS(sched_getaffinity)};

}  // namespace

const std::span<const int> kEventLoopCalls{kEventLoop};
const std::span<const int> kThreadCalls{kThreads};

Result<void> give_up_privileges() {
  if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return fail_errno("prctl(PR_SET_NO_NEW_PRIVS)", errno);
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  std::array<__user_cap_data_struct, _LINUX_CAPABILITY_U32S_3> none{};
  if (::syscall(SYS_capset, &header, none.data()) != 0) return fail_errno("dropping capabilities", errno);
  return {};
}

Result<void> forbid_inspection() {
  if (::prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0) return fail_errno("prctl(PR_SET_DUMPABLE)", errno);
  const rlimit none{0, 0};
  if (::setrlimit(RLIMIT_CORE, &none) != 0) return fail_errno("setrlimit(RLIMIT_CORE)", errno);
  return {};
}

SystemCallFilter::SystemCallFilter() : filter_(seccomp_init(SCMP_ACT_ERRNO(EPERM))) {
  if (filter_ == nullptr) error_ = -ENOMEM;
}

void SystemCallFilter::allow(std::span<const int> calls) {
  for (const int call : calls) {
    if (error_ == 0) error_ = seccomp_rule_add_array(filter_.get(), SCMP_ACT_ALLOW, call, 0, nullptr);
  }
}

void SystemCallFilter::allow_if(int call, scmp_arg_cmp condition) {
  if (error_ == 0) error_ = seccomp_rule_add_array(filter_.get(), SCMP_ACT_ALLOW, call, 1, &condition);
}

void SystemCallFilter::allow_if(int call, scmp_arg_cmp condition, scmp_arg_cmp and_this) {
  const scmp_arg_cmp conditions[] = {condition, and_this};
  if (error_ == 0) error_ = seccomp_rule_add_array(filter_.get(), SCMP_ACT_ALLOW, call, 2, conditions);
}

void SystemCallFilter::refuse(int call, int error_number) {
  const auto action = SCMP_ACT_ERRNO(static_cast<std::uint32_t>(error_number));
  if (error_ == 0) error_ = seccomp_rule_add_array(filter_.get(), action, call, 0, nullptr);
}

void SystemCallFilter::include_all_threads() {
  if (error_ == 0) error_ = seccomp_attr_set(filter_.get(), SCMP_FLTATR_CTL_TSYNC, 1);
}

Result<void> SystemCallFilter::load() {
  if (error_ == 0) error_ = seccomp_load(filter_.get());
  if (error_ != 0) return fail_errno("loading the system call filter", -error_);
  return {};
}

}  // namespace sbx
