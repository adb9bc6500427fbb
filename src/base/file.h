// Whole-file reads and writes, and a temporary folder that removes itself. Blocking; any thread.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

#include "base/result.h"
#include "base/unique_fd.h"

namespace sbx {

// open(2) with O_CLOEXEC added.
Result<UniqueFd> open_file(const std::filesystem::path& path, int flags, unsigned mode = 0600);

// The whole file; refuses (kInvalid) one larger than `limit` bytes.
Result<std::string> read_file(const std::filesystem::path& path, std::size_t limit = 64U << 20U);

// All of `data`, retried over short writes and EINTR.
Result<void> write_all(int fd, std::string_view data);

// Replaces `path` in one step: temporary file beside it, fsync, rename, fsync of the folder. After a crash the file is
// the old one or the new one, never a part.
Result<void> write_file_atomically(const std::filesystem::path& path, std::string_view data, unsigned mode = 0600);

Result<void> sync_folder(const std::filesystem::path& folder);

// mkdir -p; the last folder gets `mode`.
Result<void> make_folders(const std::filesystem::path& path, unsigned mode = 0700);

// A fresh folder under $TMPDIR (or `parent`), removed with everything in it at destruction.
class TemporaryFolder {
 public:
  static Result<TemporaryFolder> make(std::string_view prefix, const std::filesystem::path& parent = {});
  TemporaryFolder(TemporaryFolder&& other) noexcept : path_(std::exchange(other.path_, {})) {}
  TemporaryFolder& operator=(TemporaryFolder&& other) noexcept {
    std::swap(path_, other.path_);
    return *this;
  }
  ~TemporaryFolder();
  const std::filesystem::path& path() const { return path_; }

 private:
  explicit TemporaryFolder(std::filesystem::path path) : path_(std::move(path)) {}
  std::filesystem::path path_;
};

}  // namespace sbx
