#include "guest/power.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <unistd.h>

#include "base/file.h"
#include "guest/console.h"

namespace sbx::guest {

using namespace std::chrono_literals;

namespace {

// proc_sys_vm(5): 1 is the page cache, 2 dentries and inodes, 3 both.
Result<void> drop(std::string_view what) {
  const auto file = SBX_TRY(open_file("/proc/sys/vm/drop_caches", O_WRONLY), "dropping caches");
  return write_all(file.get(), what);
}

}  // namespace

Result<void> drop_caches() {
  ::sync();
  return drop("3");
}

Result<void> drop_new_caches(Guest& guest) {
  ::sync();
  guest.cgroups.reclaim();
  return drop("2");
}

void power_off() {
  ::sync();
  ::mount(nullptr, "/", nullptr, MS_REMOUNT | MS_RDONLY, nullptr);
  ::sync();
  ::reboot(RB_POWER_OFF);
  for (;;) ::pause();
}

Awaitable<void> shut_down(Guest& guest) {
  console_line("shutting down");
  co_await sleep_for(guest.executor, 50ms);  // the answer is on its way to the port
  (void)co_await guest.cgroups.thaw(2000ms);
  (void)co_await guest.cgroups.end_user_processes(500ms);
  co_await guest.docker.stop(5000ms);
  (void)co_await guest.workspaces.unmount();
  ::kill(-1, SIGKILL);
  power_off();
}

}  // namespace sbx::guest
