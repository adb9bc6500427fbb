// Tells the supervisor of a sandbox's keeper about published ports (keeper/port_table.h, "Order"). One event loop.
#pragma once

#include <filesystem>

#include "keeper/port_table.h"
#include "sandbox/async.h"

namespace sbx::sandbox {

// One order and its answer; kUnavailable if nobody listens in this runtime folder, kTimeout after five seconds.
Awaitable<Result<void>> order_ports(std::filesystem::path runtime_folder, keeper::Message order, int fd = -1);

}  // namespace sbx::sandbox
