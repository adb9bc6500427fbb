#include "base/file.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstdlib>

namespace sbx {

namespace fs = std::filesystem;

Result<UniqueFd> open_file(const fs::path& path, int flags, unsigned mode) {
  const int fd = ::open(path.c_str(), flags | O_CLOEXEC, mode);
  if (fd < 0) return fail_errno("opening " + path.string(), errno);
  return UniqueFd(fd);
}

Result<std::string> read_file(const fs::path& path, std::size_t limit) {
  auto fd = SBX_TRY(open_file(path, O_RDONLY), "reading a file");
  std::string data;
  char buffer[65536];
  for (;;) {
    const ssize_t n = ::read(fd.get(), buffer, sizeof buffer);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return fail_errno("reading " + path.string(), errno);
    if (n == 0) return data;
    if (data.size() + static_cast<std::size_t>(n) > limit) {
      return fail(ErrorCode::kInvalid, path.string() + " is larger than " + std::to_string(limit) + " bytes");
    }
    data.append(buffer, static_cast<std::size_t>(n));
  }
}

Result<void> write_all(int fd, std::string_view data) {
  while (!data.empty()) {
    const ssize_t n = ::write(fd, data.data(), data.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return fail_errno("writing", errno);
    data.remove_prefix(static_cast<std::size_t>(n));
  }
  return {};
}

Result<void> sync_folder(const fs::path& folder) {
  auto fd = SBX_TRY(open_file(folder, O_RDONLY | O_DIRECTORY), "syncing a folder");
  if (::fsync(fd.get()) != 0) return fail_errno("fsync of " + folder.string(), errno);
  return {};
}

Result<void> write_file_atomically(const fs::path& path, std::string_view data, unsigned mode) {
  std::string temporary = path.string() + ".XXXXXX";
  UniqueFd fd(::mkostemp(temporary.data(), O_CLOEXEC));
  if (!fd.valid()) return fail_errno("creating a temporary file beside " + path.string(), errno);
  auto written = write_all(fd.get(), data);
  if (written && ::fchmod(fd.get(), mode) != 0) written = fail_errno("setting the mode of " + path.string(), errno);
  if (written && ::fsync(fd.get()) != 0) written = fail_errno("fsync of " + path.string(), errno);
  if (written && ::rename(temporary.c_str(), path.c_str()) != 0) {
    written = fail_errno("renaming to " + path.string(), errno);
  }
  if (!written) {
    ::unlink(temporary.c_str());
    return written;
  }
  return sync_folder(path.has_parent_path() ? path.parent_path() : fs::path("."));
}

Result<void> make_folders(const fs::path& path, unsigned mode) {
  std::error_code error;
  if (fs::is_directory(path, error)) return {};
  if (path.has_parent_path() && path.parent_path() != path) {
    SBX_CHECK(make_folders(path.parent_path(), mode), "making parent folders");
  }
  if (::mkdir(path.c_str(), mode) != 0 && errno != EEXIST) return fail_errno("making " + path.string(), errno);
  return {};
}

Result<TemporaryFolder> TemporaryFolder::make(std::string_view prefix, const fs::path& parent) {
  const char* tmpdir = std::getenv("TMPDIR");
  const fs::path base = !parent.empty() ? parent : fs::path(tmpdir != nullptr ? tmpdir : "/tmp");
  std::string pattern = (base / (std::string(prefix) + ".XXXXXX")).string();
  if (::mkdtemp(pattern.data()) == nullptr) return fail_errno("making a temporary folder in " + base.string(), errno);
  return TemporaryFolder(pattern);
}

TemporaryFolder::~TemporaryFolder() {
  if (path_.empty()) return;
  std::error_code ignored;
  fs::remove_all(path_, ignored);
}

}  // namespace sbx
