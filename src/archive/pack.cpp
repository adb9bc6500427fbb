#include "archive/pack.h"

#include <archive.h>
#include <archive_entry.h>
#include <dirent.h>
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <map>
#include <memory>

#include "base/file.h"

namespace sbx::archive {
namespace {

using Writer = std::unique_ptr<::archive, int (*)(::archive*)>;

// No path of the system is as deep; each level holds a descriptor.
constexpr int kDeepest = 2048;
constexpr std::size_t kMostLeftOut = 10;
// A file of more pieces is sent as if it had no holes.
constexpr std::size_t kMostPieces = 100'000;

class Packer {
 public:
  explicit Packer(const PackOptions& options)
      : options_(options),
        tar_(archive_write_new(), archive_write_free),
        entry_(archive_entry_new(), archive_entry_free) {}

  Result<Packed> run(int output) {
    // libarchive would take names for text of the locale otherwise.
    if (archive_write_set_format_pax_restricted(tar_.get()) != ARCHIVE_OK ||
        archive_write_set_options(tar_.get(), "hdrcharset=BINARY") != ARCHIVE_OK ||
        archive_write_set_bytes_in_last_block(tar_.get(), 1) != ARCHIVE_OK ||
        archive_write_open_fd(tar_.get(), output) != ARCHIVE_OK) {
      return broken("packing");
    }
    SBX_CHECK(add(AT_FDCWD, options_.source.native(), options_.name, 0), "packing");
    if (archive_write_close(tar_.get()) != ARCHIVE_OK) return broken("packing");
    return std::move(packed_);
  }

 private:
  std::unexpected<Error> broken(const std::string& what) {
    if (archive_errno(tar_.get()) == EPIPE)
      return fail(ErrorCode::kUnavailable, what + ": the receiver went away before the end");
    const char* text = archive_error_string(tar_.get());
    return fail(ErrorCode::kInternal, what + ": " + (text != nullptr ? text : "unknown error"));
  }

  Result<void> add(int folder, const std::string& name, const std::string& member, int depth) {
    const bool follow = depth == 0 && options_.follow_link;
    struct stat status {};
    if (::fstatat(folder, name.c_str(), &status, follow ? 0 : AT_SYMLINK_NOFOLLOW) != 0) return lost(member, depth);
    UniqueFd file;
    if (S_ISREG(status.st_mode) || S_ISDIR(status.st_mode)) {
      // Not to block on what may have become a FIFO meanwhile.
      const int flags = O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY | (follow ? 0 : O_NOFOLLOW) |
                        (S_ISDIR(status.st_mode) ? O_DIRECTORY : 0);
      const mode_t type = status.st_mode & S_IFMT;
      file.reset(::openat(folder, name.c_str(), flags));
      if (!file.valid()) return lost(member, depth);
      if (::fstat(file.get(), &status) != 0) return fail_errno("looking at " + member, errno);
      if ((status.st_mode & S_IFMT) != type) return fail(ErrorCode::kConflict, member + " changes while it is copied");
    }
    if (S_ISSOCK(status.st_mode) || S_ISCHR(status.st_mode) || S_ISBLK(status.st_mode)) {
      if (packed_.left_out.size() < kMostLeftOut) packed_.left_out.push_back(member);
      return {};
    }
    SBX_CHECK(describe(folder, name, member, status, file.get()), "packing " + member);
    if (!(depth == 0 && options_.leave_out_root)) {
      if (archive_write_header(tar_.get(), entry_.get()) < ARCHIVE_WARN) return broken("packing " + member);
      if (S_ISREG(status.st_mode) && archive_entry_hardlink(entry_.get()) == nullptr)
        SBX_CHECK(send(file.get(), status.st_size, member), "packing");
    }
    if (S_ISDIR(status.st_mode)) return add_folder(std::move(file), member, depth);
    return {};
  }

  // What went away since its folder was read is no part of the tree; the root has to be there.
  static Result<void> lost(const std::string& member, int depth) {
    const int error = errno;
    if (error == ENOENT && depth > 0) return {};
    return fail_errno("reading " + member, error);
  }

  Result<void> describe(int folder, const std::string& name, const std::string& member, const struct stat& status,
                        int file) {
    ::archive_entry* entry = entry_.get();
    archive_entry_clear(entry);
    archive_entry_set_pathname(entry, member.c_str());
    archive_entry_set_filetype(entry, status.st_mode & S_IFMT);
    archive_entry_set_perm(entry, status.st_mode & 07777U);
    archive_entry_set_mtime(entry, status.st_mtim.tv_sec, status.st_mtim.tv_nsec);
    archive_entry_set_uid(entry, 0);
    archive_entry_set_gid(entry, 0);
    archive_entry_set_uname(entry, "root");
    archive_entry_set_gname(entry, "root");
    archive_entry_set_size(entry, 0);
    if (S_ISLNK(status.st_mode)) {
      std::array<char, 4097> target{};
      if (::readlinkat(folder, name.c_str(), target.data(), target.size() - 1) < 0)
        return fail_errno("reading the link", errno);
      archive_entry_set_symlink(entry, target.data());
    } else if (S_ISREG(status.st_mode)) {
      if (status.st_nlink > 1) {
        const auto [first, is_new] = links_.try_emplace({status.st_dev, status.st_ino}, member);
        if (!is_new) {
          archive_entry_set_hardlink(entry, first->second.c_str());
          return {};
        }
      }
      archive_entry_set_size(entry, status.st_size);
      pieces_.assign({{0, status.st_size}});
      if (status.st_blocks * 512 < status.st_size) find_pieces(file, status.st_size);
    }
    return {};
  }

  // The pieces of a file that are no holes, into pieces_; one piece if there are too many.
  void find_pieces(int file, off_t size) {
    pieces_.clear();
    for (off_t at = 0; at < size;) {
      const off_t data = ::lseek(file, at, SEEK_DATA);
      if (data < 0 || data >= size) break;
      const off_t end = std::min(::lseek(file, data, SEEK_HOLE), size);
      if (end <= data || pieces_.size() == kMostPieces) {
        pieces_.assign({{0, size}});
        break;
      }
      pieces_.emplace_back(data, end);
      at = end;
    }
    for (const auto& [begin, end] : pieces_) archive_entry_sparse_add_entry(entry_.get(), begin, end - begin);
    if (pieces_.empty()) archive_entry_sparse_add_entry(entry_.get(), size, 0);  // nothing but a hole
  }

  // The writer wants the bytes of holes too, and leaves them out. It fills up a file that has become shorter.
  Result<void> send(int file, off_t size, const std::string& member) {
    off_t at = 0;
    for (const auto& [begin, end] : pieces_) {
      SBX_CHECK(send_zeros(begin - at, member), "packing");
      for (at = begin; at < end;) {
        const ssize_t got = ::pread(file, buffer_.data(), std::min<std::size_t>(buffer_.size(), end - at), at);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return fail_errno("reading " + member, errno);
        if (got == 0) return {};
        SBX_CHECK(send_bytes(buffer_.data(), static_cast<std::size_t>(got), member), "packing");
        at += got;
      }
    }
    return send_zeros(size - at, member);
  }
  Result<void> send_zeros(off_t count, const std::string& member) {
    static const std::vector<char> kZeros(1U << 20U);
    while (count > 0) {
      const auto piece = std::min<off_t>(count, static_cast<off_t>(kZeros.size()));
      SBX_CHECK(send_bytes(kZeros.data(), static_cast<std::size_t>(piece), member), "packing");
      count -= piece;
    }
    return {};
  }
  Result<void> send_bytes(const char* bytes, std::size_t count, const std::string& member) {
    if (archive_write_data(tar_.get(), bytes, count) < 0) return broken("packing " + member);
    return {};
  }

  Result<void> add_folder(UniqueFd folder, const std::string& member, int depth) {
    if (depth == kDeepest) return fail(ErrorCode::kInvalid, "too many folders in each other at " + member);
    const std::unique_ptr<DIR, int (*)(DIR*)> entries(::fdopendir(folder.get()), ::closedir);
    if (entries == nullptr) return fail_errno("reading " + member, errno);
    const int fd = folder.release();  // closedir(3) closes it
    for (;;) {
      errno = 0;
      const dirent* found = ::readdir(entries.get());
      if (found == nullptr) break;
      const std::string name = found->d_name;
      if (name != "." && name != "..") SBX_CHECK(add(fd, name, member + "/" + name, depth + 1), "packing");
    }
    if (errno != 0) return fail_errno("reading " + member, errno);
    return {};
  }

  const PackOptions& options_;
  Writer tar_;
  std::unique_ptr<::archive_entry, void (*)(::archive_entry*)> entry_;
  std::map<std::pair<dev_t, ino_t>, std::string> links_;  // the first name of files that have several
  std::vector<std::pair<off_t, off_t>> pieces_;           // begin and end, of the file that is being packed
  std::array<char, 1U << 16U> buffer_{};
  Packed packed_;
};

}  // namespace

Result<Packed> pack(const PackOptions& options, int output) {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
    limit.rlim_cur = std::min<rlim_t>(limit.rlim_max, kDeepest + 256);
    ::setrlimit(RLIMIT_NOFILE, &limit);
  }
  const auto packer = std::make_unique<Packer>(options);
  return packer->run(output);
}

}  // namespace sbx::archive
