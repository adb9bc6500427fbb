#include "sandbox/clone_source.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "base/file.h"

namespace sbx::sandbox {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kLongestPointer = 8192;
constexpr std::size_t kLargestConfig = 1U << 20U;

// A regular file: a sandbox with a direct mount could have left a FIFO, which nobody writes to.
Result<std::string> read_regular_file(const fs::path& path, std::size_t limit) {
  const auto fd = SBX_TRY(open_file(path, O_RDONLY | O_NONBLOCK), "reading " + path.native());
  struct stat status {};
  if (::fstat(fd.get(), &status) != 0) return fail_errno("reading " + path.native(), errno);
  if (!S_ISREG(status.st_mode)) return fail(ErrorCode::kInvalid, path.native() + " is not a regular file");
  std::string text(limit, '\0');
  std::size_t size = 0;
  while (size < limit) {
    const ssize_t got = ::read(fd.get(), text.data() + size, limit - size);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return fail_errno("reading " + path.native(), errno);
    if (got == 0) break;
    size += static_cast<std::size_t>(got);
  }
  text.resize(size);
  return text;
}

// The only line of a file that names a path.
Result<std::string> pointer_in(const fs::path& file) {
  auto text = SBX_TRY(read_regular_file(file, kLongestPointer), "reading where the repository is");
  while (text.ends_with('\n') || text.ends_with('\r')) text.pop_back();
  if (text.empty() || text.find('\n') != std::string::npos || text.find('\0') != std::string::npos)
    return fail(ErrorCode::kInvalid, file.native() + " does not hold one path");
  return text;
}

bool is_same(const fs::path& path, const fs::path& expected) {
  std::error_code error;
  const auto real = fs::canonical(path, error);
  return !error && real == expected;
}

bool looks_like_repository(const fs::path& folder) {
  std::error_code error;
  return fs::is_regular_file(folder / "HEAD", error) && fs::is_directory(folder / "objects", error) &&
         fs::is_directory(folder / "refs", error);
}

std::string_view trimmed(std::string_view text) {
  const auto first = text.find_first_not_of(" \t\r");
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(" \t\r") - first + 1);
}

// core.worktree of a git folder (git-config(1)); "" if it has none. Of the syntax what git itself writes there.
std::string worktree_in_config(const fs::path& git) {
  const auto config = read_regular_file(git / "config", kLargestConfig);
  if (!config) return {};
  std::string found;
  bool core = false;
  for (std::string_view rest = *config; !rest.empty();) {
    const auto end = rest.find('\n');
    const auto line = trimmed(rest.substr(0, end));
    rest = end == std::string_view::npos ? std::string_view() : rest.substr(end + 1);
    if (line.starts_with('[')) core = line.starts_with("[core]");
    const auto equals = line.find('=');
    if (!core || equals == std::string_view::npos || trimmed(line.substr(0, equals)) != "worktree") continue;
    auto value = trimmed(line.substr(equals + 1));
    if (value.size() >= 2 && value.starts_with('"') && value.ends_with('"')) value = value.substr(1, value.size() - 2);
    found = value;
  }
  return found;
}

// What the file `root`/.git points to.
Result<CloneSource> follow_git_file(const fs::path& root) {
  const fs::path file = root / ".git";
  std::string text = SBX_TRY(pointer_in(file), "reading where the repository is");
  if (!text.starts_with("gitdir:")) return fail(ErrorCode::kInvalid, file.native() + " is not a repository");
  text = std::string(trimmed(std::string_view(text).substr(7)));
  std::error_code error;
  CloneSource source;
  source.root = root;
  source.git = source.common = fs::canonical(root / text, error);
  if (error)
    return fail(ErrorCode::kInvalid, file.native() + " points to " + text + ", where there is no repository; " +
                                         "'git -C " + root.native() + " worktree repair' may help");
  if (fs::exists(source.git / "commondir", error)) {
    const auto common = SBX_TRY(pointer_in(source.git / "commondir"), "reading where the repository is");
    source.common = fs::canonical(source.git / common, error);
    const auto back = SBX_TRY(pointer_in(source.git / "gitdir"), "reading where the worktree is");
    if (!error && source.git.parent_path() == source.common / "worktrees" && is_same(source.git / back, file))
      return source;
  } else if (const auto worktree = worktree_in_config(source.git);
             !worktree.empty() && is_same(source.git / worktree, root)) {
    return source;
  }
  return fail(ErrorCode::kInvalid, file.native() + " points to " + source.git.native() + ", which does not say that " +
                                       root.native() + " is its working tree. If it is, 'git -C " + root.native() +
                                       " config core.worktree " + root.native() +
                                       "' (or 'git worktree repair' there, for a linked worktree) says so");
}

Result<CloneSource> source_at(const fs::path& root) {
  const fs::path dot_git = root / ".git";
  std::error_code error;
  if (fs::is_regular_file(fs::symlink_status(dot_git, error))) return follow_git_file(root);
  if (!is_same(dot_git, dot_git)) {
    return fail(ErrorCode::kInvalid, dot_git.native() + " is a symbolic link; --clone takes the repository that it " +
                                         "leads to by its own path only");
  }
  return CloneSource{root, dot_git, dot_git};
}

}  // namespace

Result<CloneSource> find_clone_source(const fs::path& path) {
  std::error_code error;
  const fs::path start = fs::canonical(path, error);
  if (error) return fail(ErrorCode::kInvalid, "workspace " + path.native() + " does not exist");
  for (fs::path folder = start;; folder = folder.parent_path()) {
    if (fs::exists(fs::symlink_status(folder / ".git", error))) {
      auto source = SBX_TRY(source_at(folder), "looking for the repository");
      if (!looks_like_repository(source.common) || !fs::is_regular_file(source.git / "HEAD", error))
        return fail(ErrorCode::kInvalid, source.common.native() + " is not a Git repository");
      const auto alternates = source.common / "objects/info/alternates";
      if (fs::exists(alternates, error) && fs::file_size(alternates, error) > 0) {
        return fail(ErrorCode::kInvalid, folder.native() + " borrows objects from another repository (" +
                                             alternates.native() + "), which the sandbox would not see; 'git -C " +
                                             folder.native() +
                                             " repack -a -d' copies them, and then that file can be deleted");
      }
      return source;
    }
    if (looks_like_repository(folder)) {
      return fail(ErrorCode::kInvalid,
                  folder.native() + " is a repository without a working tree; --clone takes the path of a checkout");
    }
    if (folder == folder.root_path()) break;
  }
  return fail(ErrorCode::kInvalid,
              "--clone requires a Git repository, but " + start.native() + " is not in a Git repository");
}

}  // namespace sbx::sandbox
