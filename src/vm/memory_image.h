// Memory images: a machine's whole migration stream without the pages that its template has, compressed. The stream is
// hostile, so the filter (sbx-memory-filter) is a jailed process between QEMU and the file; here it is started and its
// end is awaited. Blocking; the thread that starts a filter must outlive it.
#pragma once

#include <chrono>
#include <filesystem>
#include <optional>
#include <utility>

#include "base/command.h"
#include "base/result.h"
#include "base/unique_fd.h"
#include "vm/machine_process.h"

namespace sbx::vm {

// Destroyed before it is finished, it takes the file with it.
struct SavingMemory {
  SavingMemory() = default;
  SavingMemory(SavingMemory&& other) noexcept
      : filter(std::move(other.filter)),
        stream(std::move(other.stream)),
        image(std::move(other.image)),
        path(std::exchange(other.path, {})) {}
  SavingMemory& operator=(SavingMemory&&) = delete;
  ~SavingMemory();

  Subprocess filter;
  UniqueFd stream;  // for QEMU to write its stream to; every copy must be closed before the filter ends
  UniqueFd image;
  std::filesystem::path path;  // empty: finished, or moved from
};
// Makes `image` (0600; kConflict if it is there). A machine without a template (kBoot, kRestore) leaves out zero pages
// only.
Result<SavingMemory> start_saving_memory(const StartSpec& machine, const std::filesystem::path& image);
// Waits for the filter: with success the image is complete and fsynced.
Result<void> finish_saving_memory(SavingMemory& saving, std::chrono::milliseconds deadline);

struct LoadingMemory {
  Subprocess filter;
  UniqueFd stream;  // for QEMU to read its stream from
};
Result<LoadingMemory> start_loading_memory(const std::filesystem::path& image, const std::optional<unsigned>& uid);
// After QEMU has read it all: whether that was the whole image.
Result<void> finish_loading_memory(LoadingMemory& loading, std::chrono::milliseconds deadline);

}  // namespace sbx::vm
