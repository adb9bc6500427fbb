#include "archive/target.h"

#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <ranges>

namespace sbx::archive {
namespace {

constexpr mode_t kPermissions = 0777;

std::unexpected<Error> fail_at(const MemberPath& path, const char* what, int error) {
  if (error == ELOOP || error == EXDEV)
    return fail(ErrorCode::kDenied, "refused: " + to_string(path) + " leads through a symbolic link");
  return fail_errno(what + std::string(" ") + to_string(path), error);
}

std::array<timespec, 2> times(const Target::Attributes& attributes) {
  return {timespec{0, UTIME_OMIT}, attributes.modified};
}

}  // namespace

std::string to_string(const MemberPath& path) {
  std::string text;
  for (const auto& name : path) text += (text.empty() ? "" : "/") + name;
  return text.empty() ? "." : text;
}

Result<UniqueFd> Target::open_folder(const MemberPath& path, int flags) const {
  open_how how{};
  how.flags = static_cast<std::uint64_t>(flags) | O_DIRECTORY | O_CLOEXEC;
  how.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS;
  const std::string text = to_string(path);
  UniqueFd fd(static_cast<int>(::syscall(SYS_openat2, folder_, text.c_str(), &how, sizeof how)));
  if (!fd.valid()) return fail_at(path, "opening", errno);
  return fd;
}

Result<int> Target::parent_of(const MemberPath& path) {
  const MemberPath parent(path.begin(), path.end() - 1);
  if (parent_.valid() && parent == parent_path_) return parent_.get();
  // From the top: most archives name every folder before what is in it, so there is rarely anything to make.
  auto fd = open_folder(parent, O_PATH);
  if (!fd && fd.error().code == ErrorCode::kNotFound) {
    for (std::size_t depth = 1; depth <= parent.size(); ++depth) {
      const MemberPath folder(parent.begin(), parent.begin() + static_cast<std::ptrdiff_t>(depth));
      const auto above =
          SBX_TRY(open_folder(MemberPath(folder.begin(), folder.end() - 1), O_PATH), "opening the folder above");
      if (::mkdirat(above.get(), folder.back().c_str(), 0755) != 0 && errno != EEXIST)
        return fail_at(folder, "making", errno);
    }
    fd = open_folder(parent, O_PATH);
  }
  if (!fd) return std::unexpected(fd.error());
  parent_ = std::move(*fd);
  parent_path_ = parent;
  return parent_.get();
}

Result<void> Target::clear(int parent, const MemberPath& path) {
  if (::unlinkat(parent, path.back().c_str(), 0) == 0 || errno == ENOENT) return {};
  if (errno == EISDIR)
    return fail(ErrorCode::kConflict, "cannot overwrite the folder " + to_string(path) + " with something else");
  return fail_at(path, "replacing", errno);
}

Result<void> Target::make_folder(const MemberPath& path, const Attributes& attributes) {
  if (path.empty()) return {};
  const int parent = SBX_TRY(parent_of(path), "making a folder");
  if (::mkdirat(parent, path.back().c_str(), 0700) == 0) {
    folders_.emplace_back(path, attributes);
    return {};
  }
  if (errno != EEXIST) return fail_at(path, "making", errno);
  struct stat status {};
  if (::fstatat(parent, path.back().c_str(), &status, AT_SYMLINK_NOFOLLOW) != 0)
    return fail_at(path, "looking at", errno);
  if (S_ISLNK(status.st_mode)) return fail_at(path, "making", ELOOP);
  if (!S_ISDIR(status.st_mode))
    return fail(ErrorCode::kConflict, "cannot overwrite " + to_string(path) + " with a folder");
  return {};
}

Result<UniqueFd> Target::make_file(const MemberPath& path) {
  if (path.empty()) return fail(ErrorCode::kDenied, "refused: the archive has a file in the place of its root");
  const int parent = SBX_TRY(parent_of(path), "making a file");
  SBX_CHECK(clear(parent, path), "making a file");
  UniqueFd file(
      ::openat(parent, path.back().c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, S_IRUSR | S_IWUSR));
  if (!file.valid()) return fail_at(path, "making", errno);
  struct stat status {};
  if (::fstat(file.get(), &status) != 0) return fail_at(path, "looking at", errno);
  made_.emplace(status.st_dev, status.st_ino);
  return file;
}

Result<void> Target::finish_file(int file, const Attributes& attributes, off_t size) {
  if (::ftruncate(file, size) != 0) return fail_errno("setting the size", errno);
  if (::fchmod(file, attributes.mode & kPermissions) != 0) return fail_errno("setting the permissions", errno);
  if (::futimens(file, times(attributes).data()) != 0) return fail_errno("setting the time", errno);
  return {};
}

Result<void> Target::make_symlink(const MemberPath& path, const std::string& target, const Attributes& attributes) {
  if (path.empty()) return fail(ErrorCode::kDenied, "refused: the archive has a link in the place of its root");
  const int parent = SBX_TRY(parent_of(path), "making a link");
  SBX_CHECK(clear(parent, path), "making a link");
  if (::symlinkat(target.c_str(), parent, path.back().c_str()) != 0) return fail_at(path, "making", errno);
  ::utimensat(parent, path.back().c_str(), times(attributes).data(), AT_SYMLINK_NOFOLLOW);
  return {};
}

Result<void> Target::make_hard_link(const MemberPath& path, const MemberPath& existing) {
  if (path.empty() || existing.empty()) return fail(ErrorCode::kDenied, "refused: the archive links to its root");
  const auto from =
      SBX_TRY(open_folder(MemberPath(existing.begin(), existing.end() - 1), O_PATH), "making a hard link");
  struct stat status {};
  if (::fstatat(from.get(), existing.back().c_str(), &status, AT_SYMLINK_NOFOLLOW) != 0 || !S_ISREG(status.st_mode) ||
      !made_.contains({status.st_dev, status.st_ino})) {
    return fail(ErrorCode::kDenied, "refused: " + to_string(path) + " is a hard link to " + to_string(existing) +
                                        ", which is not part of the archive");
  }
  if (path == existing) return {};
  const int parent = SBX_TRY(parent_of(path), "making a hard link");
  SBX_CHECK(clear(parent, path), "making a hard link");
  if (::linkat(from.get(), existing.back().c_str(), parent, path.back().c_str(), 0) != 0)
    return fail_at(path, "making", errno);
  return {};
}

Result<void> Target::finish() {
  for (const auto& [path, attributes] : std::views::reverse(folders_)) {
    const auto folder = SBX_TRY(open_folder(path, O_RDONLY), "finishing a folder");
    if (::fchmod(folder.get(), attributes.mode & kPermissions) != 0)
      return fail_at(path, "setting permissions of", errno);
    if (::futimens(folder.get(), times(attributes).data()) != 0) return fail_at(path, "setting the time of", errno);
  }
  return {};
}

}  // namespace sbx::archive
