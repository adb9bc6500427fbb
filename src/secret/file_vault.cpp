#include "secret/file_vault.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <cerrno>

#include "base/file.h"
#include "secret/vault_file.h"

namespace sbx::secret {
namespace {

namespace fs = std::filesystem;

// A regular file that nobody but its owner, who is us, can read or could have put there. nullopt-like: an invalid fd if
// there is none.
Result<UniqueFd> open_private(const fs::path& path) {
  UniqueFd fd(::open(path.c_str(), O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK));
  if (!fd.valid() && errno == ENOENT) return fd;
  if (!fd.valid() && errno == ELOOP)
    return fail(ErrorCode::kDenied, path.native() + " is a symbolic link; sbx does not follow it");
  if (!fd.valid()) return fail_errno("opening " + path.native(), errno);
  struct stat info {};
  if (::fstat(fd.get(), &info) != 0) return fail_errno("looking at " + path.native(), errno);
  if (!S_ISREG(info.st_mode)) return fail(ErrorCode::kDenied, path.native() + " is not a regular file");
  if (info.st_uid != ::geteuid()) return fail(ErrorCode::kDenied, path.native() + " belongs to another user");
  if ((info.st_mode & 0077U) != 0)
    return fail(ErrorCode::kDenied,
                path.native() + " can be read or written by others; if nobody has, chmod 600 it and try again");
  return fd;
}

// Whoever can write the folder can put another file in place of ours.
Result<void> check_folder(const fs::path& folder) {
  struct stat info {};
  if (::lstat(folder.c_str(), &info) != 0) return fail_errno("looking at " + folder.native(), errno);
  if (!S_ISDIR(info.st_mode)) return fail(ErrorCode::kDenied, folder.native() + " is not a folder");
  if (info.st_uid != ::geteuid()) return fail(ErrorCode::kDenied, folder.native() + " belongs to another user");
  if ((info.st_mode & 0022U) != 0)
    return fail(ErrorCode::kDenied, folder.native() + " can be written by others; chmod 700 it and try again");
  return {};
}

Result<LockedString> read_all(int fd, std::size_t limit) {
  LockedString bytes;
  for (;;) {
    const auto room = SBX_TRY(bytes.prepare(4096), "reading a file");
    const ssize_t got = ::read(fd, room.data(), room.size());
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return fail_errno("reading a file", errno);
    if (got == 0) return bytes;
    bytes.commit(static_cast<std::size_t>(got));
    if (bytes.size() > limit) return fail(ErrorCode::kInvalid, "it is too large");
  }
}

}  // namespace

std::string FileVault::description() const { return "encrypted file " + file_of(folders_).native(); }

fs::path FileVault::key_path(const std::string& name) const { return folders_.config / "keys" / (name + ".key"); }

Result<LockedString> FileVault::read_key(const std::string& name) const {
  const fs::path path = key_path(name);
  const auto lost = [&] {
    return fail(ErrorCode::kUnavailable, "the key of " + file_of(folders_).native() + " is missing: " + path.native() +
                                             "; put it back, or remove the file to start without secrets");
  };
  if (!fs::exists(path.parent_path())) return lost();
  SBX_CHECK(check_folder(path.parent_path()), "checking the keys' folder");
  const auto fd = SBX_TRY(open_private(path), "opening the key");
  if (!fd.valid()) return lost();
  auto key = SBX_TRY(read_all(fd.get(), kKeyBytes), "reading " + path.native());
  if (key.size() != kKeyBytes) return fail(ErrorCode::kInvalid, path.native() + " is not a key (it is damaged)");
  return key;
}

Result<std::vector<Entry>> FileVault::load() {
  const fs::path path = file_of(folders_);
  const auto fd = SBX_TRY(open_private(path), "opening the secrets' file");
  if (!fd.valid()) return std::vector<Entry>();
  const auto file = read_all(fd.get(), kLargestFile);
  if (!file) return fail(file.error().code, path.native() + ": " + file.error().message);
  auto name = key_name_of(file->reveal());
  if (name) {
    auto key = SBX_TRY(read_key(*name), "reading the key");
    auto entries = secret::open(file->reveal(), key);
    if (entries) {
      key_name_ = std::move(*name);
      key_ = std::move(key);
      return entries;
    }
    name = std::unexpected(entries.error());
  }
  return fail(name.error().code,
              path.native() + ": " + name.error().message +
                  ". It was left as it is: put a good copy in its place, or remove it to start without secrets");
}

Result<void> FileVault::make_key_file() {
  auto key = SBX_TRY(make_key(), "making a key");
  std::string name = make_key_name();
  const fs::path path = key_path(name);
  SBX_CHECK(make_folders(path.parent_path(), 0700), "making the keys' folder");
  SBX_CHECK(check_folder(path.parent_path()), "checking the keys' folder");
  SBX_CHECK(write_file_atomically(path, key.reveal(), 0600), "writing the key");
  key_ = std::move(key);
  key_name_ = std::move(name);
  return {};
}

Result<void> FileVault::save(const std::vector<Entry>& entries, const std::string& key) {
  (void)key;  // the file is small: all of it is written anew
  const fs::path path = file_of(folders_);
  if (entries.empty()) {
    std::error_code error;
    fs::remove(path, error);
    if (error) return fail(ErrorCode::kInternal, "removing " + path.native() + ": " + error.message());
    SBX_CHECK(sync_folder(folders_.home), "removing the secrets' file");
    if (!key_name_.empty()) fs::remove(key_path(key_name_), error);
    key_name_.clear();
    key_.clear();
    return {};
  }
  if (key_.empty()) SBX_CHECK(make_key_file(), "making the key of the secrets' file");
  const auto file = SBX_TRY(seal(entries, key_, key_name_), "encrypting the secrets");
  return write_file_atomically(path, file, 0600);
}

}  // namespace sbx::secret
