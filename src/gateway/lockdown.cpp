#include "gateway/lockdown.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <array>

#include "base/lockdown.h"

namespace sbx::gateway {
namespace {

constexpr std::array kRuntime{SCMP_SYS(uname), SCMP_SYS(sysinfo), SCMP_SYS(gettimeofday), SCMP_SYS(time)};

// Reading what the resolver reads; nothing is opened for writing (below).
constexpr std::array kFiles{SCMP_SYS(newfstatat), SCMP_SYS(fstat),  SCMP_SYS(statx),
                            SCMP_SYS(pread64),    SCMP_SYS(access), SCMP_SYS(stat)};

constexpr std::array kNetwork{SCMP_SYS(connect),    SCMP_SYS(accept4),    SCMP_SYS(accept),      SCMP_SYS(shutdown),
                              SCMP_SYS(getsockopt), SCMP_SYS(setsockopt), SCMP_SYS(getsockname), SCMP_SYS(getpeername),
                              SCMP_SYS(sendto),     SCMP_SYS(recvfrom),   SCMP_SYS(sendmsg),     SCMP_SYS(recvmsg),
                              SCMP_SYS(sendmmsg),   SCMP_SYS(bind)};

Result<void> confine_system_calls() {
  SystemCallFilter filter;
  filter.include_all_threads();
  filter.allow(kEventLoopCalls);
  filter.allow(kThreadCalls);
  filter.allow(kRuntime);
  filter.allow(kFiles);
  filter.allow(kNetwork);
  for (const int request : {FIONBIO, FIONREAD}) {
    filter.allow_if(SCMP_SYS(ioctl), argument_is(1, request));
  }
  for (const int family : {AF_INET, AF_INET6}) {
    filter.allow_if(SCMP_SYS(socket), argument_is(0, family));
  }
  filter.allow_if(SCMP_SYS(open), argument_is_masked(1, O_ACCMODE | O_CREAT | O_TRUNC, O_RDONLY));
  filter.allow_if(SCMP_SYS(openat), argument_is_masked(2, O_ACCMODE | O_CREAT | O_TRUNC, O_RDONLY));
  return filter.load();
}

}  // namespace

Result<void> lock_down() {
  SBX_CHECK(give_up_privileges(), "locking down");
  SBX_CHECK(forbid_inspection(), "locking down");
  return confine_system_calls();
}

}  // namespace sbx::gateway
