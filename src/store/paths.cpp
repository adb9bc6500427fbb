#include "store/paths.h"

#include <fcntl.h>
#include <pwd.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>

#include "base/file.h"

namespace sbx::store {
namespace {

// FNV-1a: short, and the same in every build; the name needs no secrecy since the folder's owner is checked.
std::string short_hash(const std::string& text) {
  std::uint64_t hash = 0xcbf29ce484222325ULL;
  for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3ULL;
  char buffer[17];
  std::snprintf(buffer, sizeof buffer, "%08x", static_cast<unsigned>(hash ^ (hash >> 32U)));
  return buffer;
}

// "/run" + "/12345678" + "/keeper.sock" and the like: what may still be appended to HOME.
constexpr std::size_t kLongestSocket = 100;
constexpr std::string_view kLongestTail = "/12345678/network.sock";

}  // namespace

Result<Paths> Paths::from_environment(const std::string& app_name) {
  for (const char c : app_name) {
    if (std::isalnum(static_cast<unsigned char>(c)) == 0 && c != '-' && c != '_') {
      return fail(ErrorCode::kInvalid, "--app-name may hold letters, digits, '-' and '_' only");
    }
  }
  const std::string suffix = app_name.empty() ? "" : "-" + app_name;
  if (const char* home = std::getenv("SBX_HOME"); home != nullptr && *home != '\0') {
    return for_home(std::filesystem::absolute(home + suffix));
  }
  std::string user_home;
  if (const char* home = std::getenv("HOME"); home != nullptr && *home != '\0') {
    user_home = home;
  } else if (const passwd* entry = ::getpwuid(::getuid()); entry != nullptr) {
    user_home = entry->pw_dir;
  } else {
    return fail(ErrorCode::kInvalid, "neither SBX_HOME nor HOME is set");
  }
  return for_home(std::filesystem::path(user_home) / ".local/share" / ("sbx" + suffix));
}

Paths Paths::for_home(const std::filesystem::path& home) {
  Paths paths;
  paths.home = home.lexically_normal();
  if (paths.home.filename().empty()) paths.home = paths.home.parent_path();
  paths.run = paths.home / "run";
  if (paths.run.native().size() + kLongestTail.size() > kLongestSocket) {
    const std::string hash = short_hash(paths.home.native());
    const char* runtime = std::getenv("XDG_RUNTIME_DIR");
    if (runtime != nullptr && *runtime == '/' && std::string_view(runtime).size() < 50 &&
        ::access(runtime, W_OK) == 0) {
      paths.run = std::filesystem::path(runtime) / ("sbx-" + hash);
    } else {
      paths.run = "/tmp/sbx-" + std::to_string(::getuid()) + "-" + hash;
    }
  }
  return paths;
}

Result<void> Paths::make() const {
  for (const auto& folder : {home, run, log_folder(), images(), templates(), sandboxes()}) {
    SBX_CHECK(make_folders(folder, 0700), "making " + folder.native());
  }
  struct stat info {};
  if (::lstat(run.c_str(), &info) != 0) return fail_errno("looking at " + run.native(), errno);
  if (!S_ISDIR(info.st_mode) || info.st_uid != ::getuid()) {
    return fail(ErrorCode::kDenied,
                run.native() + " belongs to another user; remove it or set SBX_HOME to a shorter path");
  }
  if ((info.st_mode & 0077U) != 0 && ::chmod(run.c_str(), 0700) != 0) return fail_errno("chmod " + run.native(), errno);
  return {};
}

Result<UniqueFdLock> lock_file(const std::filesystem::path& path, FileLockOptions options) {
  auto fd = SBX_TRY(open_file(path, O_RDWR | O_CREAT, 0600), "opening the lock " + path.native());
  int result = 0;
  do {
    result = ::flock(fd.get(), options.wait ? LOCK_EX : LOCK_EX | LOCK_NB);
  } while (result != 0 && errno == EINTR);
  if (result != 0) {
    if (errno == EWOULDBLOCK) return fail(ErrorCode::kConflict, path.native() + " is locked by another process");
    return fail_errno("locking " + path.native(), errno);
  }
  return UniqueFdLock(fd.release());
}

UniqueFdLock::~UniqueFdLock() {
  if (fd_ >= 0) ::close(fd_);
}

}  // namespace sbx::store
