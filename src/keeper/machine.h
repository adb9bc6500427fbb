// How a keeper's virtual machine comes up and goes down, as the worker drives it; the files and the processes behind
// each step are the supervisor's, which also keeps the order that never lets a disk meet an older memory
// (machine_files.h). Thread: that of the executor.
#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <memory>

#include "base/result.h"
#include "base/unique_fd.h"
#include "keeper/supervisor_client.h"
#include "keeper/worker_spec.h"
#include "vm/machine_control.h"

namespace sbx::keeper {

// Brings up the machine behind `qmp` by spec.mode, from `state`, and lets it run. A resume that fails boots from the
// clean disk instead, and says so in spec.mode. The guest is not spoken to.
wire::Awaitable<Result<std::unique_ptr<vm::MachineControl>>> start_machine(WorkerSpec& spec, UniqueFd qmp,
                                                                           UniqueFd state,
                                                                           SupervisorClient& supervisor);

// Guest quiesced, unmounted and frozen by the caller. Ends the machine whether it succeeds or not; with an error there
// is no image, and the next start boots from the disk.
wire::Awaitable<Result<void>> stop_with_memory(vm::MachineControl& machine, SupervisorClient& supervisor);

}  // namespace sbx::keeper
