// The files behind a sandbox's machine: its disk, its memory image and what QEMU needs opened. The supervisor's.
//
// The order of the steps is what keeps a disk from ever meeting an older memory:
//   stop:  image to a temporary file, fsync, QEMU gone, disk fsynced, rename, folder fsynced.
//   start: image loaded, unlinked, folder fsynced, and only then the guest runs.
#pragma once

#include <filesystem>

#include "base/result.h"
#include "keeper/launch_spec.h"
#include "vm/machine_process.h"
#include "vm/memory_image.h"

namespace sbx::keeper {

// How the machine of a clone, a resume or a boot is started.
vm::StartSpec machine_start(const LaunchSpec& spec, vm::Purpose purpose);
// Whether the memory image lacks the template's pages (kClone) or stands alone (kRestore).
vm::Purpose memory_image_purpose(const LaunchSpec& spec);

// An overlay on the template's disk, if there is none yet, or one that a power cut has left without content.
Result<void> ensure_disk(const LaunchSpec& spec);
// No memory image, finished or not, durably.
Result<void> discard_memory_image(const LaunchSpec& spec);
std::filesystem::path unfinished_memory_image(const LaunchSpec& spec);
// QEMU has ended in order and the image (of a machine of this purpose) is complete and synced: gives it its name. After
// an error there is none.
Result<void> keep_memory_image(const LaunchSpec& spec, vm::Purpose purpose);

// Makes initramfs and disk of a template that is to be built.
Result<vm::StartSpec> prepare_template(const LaunchSpec& spec, int console_fd);
// QEMU has ended and the RAM is in its file.
Result<void> seal_built_template(const LaunchSpec& spec, std::int64_t boot_ms);

}  // namespace sbx::keeper
