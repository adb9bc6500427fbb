// Files that a start writes anew, and no clone may pay much for.
#pragma once

#include <filesystem>
#include <string_view>

#include "base/result.h"

namespace sbx::guest {

// Makes `text` the content of the file. In place: a file that is truncated first gives up its blocks, and ext4 then
// allocates and writes out new ones at once (auto_da_alloc), which costs a clone five times as much. So a crash may
// leave a mixture, and nothing is synced; both are right only for what the next start writes again.
Result<void> overwrite(const std::filesystem::path& path, std::string_view text);

}  // namespace sbx::guest
