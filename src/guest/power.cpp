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

Result<void> drop_caches() {
  ::sync();
  const auto file = SBX_TRY(open_file("/proc/sys/vm/drop_caches", O_WRONLY), "dropping caches");
  SBX_CHECK(write_all(file.get(), "3"), "dropping caches");
  return {};
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
  if (guest.cgroups.frozen()) (void)co_await guest.cgroups.set_frozen(false, 2000ms);
  (void)co_await guest.cgroups.end_user_processes(500ms);
  co_await guest.docker.stop(5000ms);
  (void)co_await guest.workspaces.unmount();
  ::kill(-1, SIGKILL);
  power_off();
}

}  // namespace sbx::guest
