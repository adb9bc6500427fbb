// From the initramfs to a running system: the part of an init that comes before any event loop. Blocking; PID 1 only.
#pragma once

#include <string>
#include <string_view>

#include "base/result.h"

namespace sbx::guest {

// The value of `key` in a kernel command line ("a=1 b c=2"); empty if it is not there.
std::string kernel_argument(std::string_view command_line, std::string_view key);

// Stage 1: /dev, the modules of /modules.list, the root file system on /dev/vda, and into it. `command_line` receives
// /proc/cmdline.
Result<void> enter_root_file_system(std::string& command_line);

// Stage 2: what a Linux user land expects to be mounted, the loopback interface, limits, the hostname of /etc/hostname.
// Goes on after a failure (said on the console): a sandbox without /dev/mqueue is better than none.
void prepare_system();

// Milliseconds since the kernel started.
long boot_milliseconds();

}  // namespace sbx::guest
