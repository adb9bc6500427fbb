#include "guest/overwrite.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "base/file.h"

namespace sbx::guest {

Result<void> overwrite(const std::filesystem::path& path, std::string_view text) {
  const auto file = SBX_TRY(open_file(path, O_WRONLY | O_CREAT, 0644), "writing " + path.string());
  SBX_CHECK(write_all(file.get(), text), "writing " + path.string());
  struct stat info {};
  if (::fstat(file.get(), &info) != 0) return fail_errno("writing " + path.string(), errno);
  const auto size = static_cast<off_t>(text.size());
  if (info.st_size > size && ::ftruncate(file.get(), size) != 0) return fail_errno("writing " + path.string(), errno);
  return {};
}

}  // namespace sbx::guest
