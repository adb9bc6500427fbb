// How a keeper's virtual machine comes up and goes down: clone, resume, cold boot; memory image, clean shutdown.
//
// Thread: that of the executor. The order of the steps is what keeps a disk from ever meeting an older memory:
//   stop:  image to a temporary file, fsync, QEMU gone, disk fsynced, rename, folder fsynced.
//   start: image loaded, unlinked, folder fsynced, and only then the guest runs.
#pragma once

#include <memory>
#include <nlohmann/json.hpp>

#include "base/result.h"
#include "keeper/guest_link.h"
#include "keeper/launch_spec.h"
#include "vm/virtual_machine.h"

namespace sbx::keeper {

// Starts the machine of `spec` by its mode and lets it run. A resume that fails deletes the image and boots from the
// clean disk instead. The guest is not spoken to.
wire::Awaitable<Result<std::unique_ptr<vm::VirtualMachine>>> start_machine(LaunchSpec& spec);

// Guest quiesced, unmounted and frozen by the caller. Ends the machine whether it succeeds or not; with an error there
// is no image, and the next start boots from the disk.
wire::Awaitable<Result<void>> stop_with_memory(const LaunchSpec& spec, vm::VirtualMachine& machine);

}  // namespace sbx::keeper
