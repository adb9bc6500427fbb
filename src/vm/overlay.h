// Writes the qcow2 overlays that are the disks of sandboxes, without running qemu-img (15 to 65 ms each).
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

#include "base/result.h"
#include "vm/machine_spec.h"

namespace sbx::vm {

struct OverlayOptions {
  std::uint64_t virtual_size = 0;  // bytes; a multiple of 512
  // Recorded in the header for people and qemu-img; QEMU itself is given the chain node by node and opens no path.
  // Empty: none is recorded.
  std::string backing_file;
  DiskFormat backing_format = DiskFormat::kRaw;
};

// Creates `path` (0600), an empty qcow2 version 3 image with 64 KiB clusters; kConflict if it exists. The file is
// complete but not fsynced.
Result<void> create_overlay(const std::filesystem::path& path, const OverlayOptions& options);

// The virtual size of a qcow2 image's header, or the size of a raw file.
Result<std::uint64_t> virtual_disk_size(const std::filesystem::path& path, DiskFormat format);

// Enlarges an overlay's virtual size in place (up to 4 TiB); its VM must not run. kInvalid for less than it has.
Result<void> grow_overlay(const std::filesystem::path& path, std::uint64_t virtual_size);

}  // namespace sbx::vm
