// The recipe of a root image: the files of the project's image/ folder and a few settings. Its id names the image.
// Blocking; any thread.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

#include "base/result.h"

namespace sbx::image {

struct Recipe {
  std::filesystem::path folder;  // build.sh, customize.sh, packages.txt, modules.txt
  std::string suite = "trixie";
  std::uint64_t disk_bytes = 20ULL << 30U;  // virtual size of root.ext4; a sandbox's disk starts with it
};

// The recipe that this program was installed or built with: $SBX_SHARE_DIR/image if that is set, else
// share/sbx/image beside the program's bin folder, else the source tree's image/. kNotFound if none is there.
Result<Recipe> find_recipe();

// 16 hex digits: SHA-256 over the recipe's files and settings. The same recipe has the same id on every host; the
// versions that a mirror served when it was built are not part of it (the manifest tells when that was).
Result<std::string> image_id(const Recipe& recipe);

}  // namespace sbx::image
