#include "keeper/worker_lockdown.h"

#include <fcntl.h>
#include <linux/landlock.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>

#include "base/lockdown.h"
#include "base/unique_fd.h"

namespace sbx::keeper {
namespace {

// The log is the one file that the worker may write to.
constexpr rlim_t kLogBytes = 16U << 20U;
constexpr rlim_t kDescriptors = 4096;

Result<void> limit_log() {
  ::signal(SIGXFSZ, SIG_IGN);  // a full log costs lines, not the sandbox
  const rlimit log{kLogBytes, kLogBytes};
  if (::setrlimit(RLIMIT_FSIZE, &log) != 0) return fail_errno("setrlimit(RLIMIT_FSIZE)", errno);
  return {};
}

// One for each connection to a published port.
void allow_many_descriptors() {
  rlimit files{};
  if (::getrlimit(RLIMIT_NOFILE, &files) != 0 || files.rlim_cur >= kDescriptors) return;
  files.rlim_cur = std::min(kDescriptors, files.rlim_max);
  ::setrlimit(RLIMIT_NOFILE, &files);
}

// Every right that the host's Landlock knows, and no rule that gives one back.
Result<void> give_up_paths() {
  const long abi = ::syscall(SYS_landlock_create_ruleset, nullptr, 0, LANDLOCK_CREATE_RULESET_VERSION);
  if (abi < 1) return {};  // without open(2) there is no way to name a path either
  landlock_ruleset_attr rules{};
  rules.handled_access_fs = (LANDLOCK_ACCESS_FS_MAKE_SYM << 1U) - 1;  // ABI 1
  const UniqueFd ruleset(static_cast<int>(::syscall(SYS_landlock_create_ruleset, &rules, sizeof rules, 0)));
  if (!ruleset.valid()) return fail_errno("making a Landlock ruleset", errno);
  if (::syscall(SYS_landlock_restrict_self, ruleset.get(), 0) != 0) return fail_errno("entering Landlock", errno);
  return {};
}

// Bytes of the ports, and clients of keeper.sock and of published ports.
constexpr std::array kSockets{SCMP_SYS(recvmsg), SCMP_SYS(recvfrom), SCMP_SYS(accept), SCMP_SYS(accept4),
                              SCMP_SYS(shutdown)};

Result<void> confine_system_calls() {
  SystemCallFilter filter;
  filter.allow(kEventLoopCalls);
  filter.allow(kSockets);
  // The sockets of published ports are the host's: a connection that is begun by its first bytes would be a way out.
  // sendmsg(2) passes files to QEMU.
  filter.allow_if(SCMP_SYS(sendto), argument_is_masked(3, MSG_FASTOPEN, 0), argument_is(4, 0));
  filter.allow_if(SCMP_SYS(sendmsg), argument_is_masked(2, MSG_FASTOPEN, 0));
  // Closing with a reset.
  filter.allow_if(SCMP_SYS(setsockopt), argument_is(1, SOL_SOCKET), argument_is(2, SO_LINGER));
  // Memory that is written is never executed.
  filter.allow_if(SCMP_SYS(mmap), argument_is_masked(2, PROT_EXEC, 0));
  filter.allow_if(SCMP_SYS(mprotect), argument_is_masked(2, PROT_EXEC, 0));
  // Non-blocking mode, close-on-exec, copies of descriptors; no owner to be signalled, no lease, no lock.
  filter.allow_if(SCMP_SYS(ioctl), argument_is(1, FIONBIO));
  for (const int command : {F_GETFD, F_SETFD, F_GETFL, F_SETFL, F_DUPFD_CLOEXEC}) {
    filter.allow_if(SCMP_SYS(fcntl), argument_is(1, command));
  }
  // abort(3) signals itself.
  filter.allow_if(SCMP_SYS(tgkill), argument_is(0, ::getpid()));
  return filter.load();
}

}  // namespace

Result<void> lock_worker_down() {
  SBX_CHECK(give_up_privileges(), "locking down");
  SBX_CHECK(forbid_inspection(), "locking down");
  SBX_CHECK(limit_log(), "locking down");
  SBX_CHECK(give_up_paths(), "locking down");
  allow_many_descriptors();
  return confine_system_calls();
}

}  // namespace sbx::keeper
