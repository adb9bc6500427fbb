// The initramfs of a template's boot: sbx-guest as /init and the modules that it needs to find its root file system.
#pragma once

#include <filesystem>

#include "base/result.h"

namespace sbx::image {

// Writes a gzip-compressed newc archive (Documentation/driver-api/early-userspace/buffer-format.rst) to `out`:
//
//   /init           guest_binary, 0755; static, since nothing else is there
//   /modules/*.ko   of the image
//   /modules.list   their names, one a line, in the order to load them
//   /dev/console    so that /init has a standard output before it mounts devtmpfs
//   /dev /proc /sys /run /newroot   empty folders
//
// The same input gives the same bytes. `out` is replaced in one step. Blocking; any thread. Fails with kNotFound if the
// guest binary or the image's manifest is not there.
Result<void> write_initramfs(const std::filesystem::path& guest_binary, const std::filesystem::path& image_folder,
                             const std::filesystem::path& out);

}  // namespace sbx::image
