#include "archive/unpack.h"

#include <archive.h>
#include <archive_entry.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <filesystem>
#include <memory>
#include <optional>
#include <string_view>

#include "archive/target.h"

namespace sbx::archive {
namespace {

constexpr std::size_t kReadSize = 65536;
// tar fills its last record up, to 10 KiB unless told otherwise.
constexpr std::size_t kMostPadding = 1U << 20U;

std::unexpected<Error> refuse(const std::string& what) { return fail(ErrorCode::kDenied, "refused: " + what); }

class Unpacker {
 public:
  explicit Unpacker(const UnpackOptions& options)
      : options_(options), tar_(archive_read_new(), archive_read_free), target_(options.folder) {}

  Result<std::size_t> run() {
    ::archive* tar = tar_.get();
    archive_read_support_format_tar(tar);
    archive_read_support_format_empty(tar);
    if (archive_read_open_fd(tar, options_.input, kReadSize) != ARCHIVE_OK) return broken("reading the archive");
    std::size_t members = 0;
    for (;; ++members) {
      ::archive_entry* entry = nullptr;
      const int code = archive_read_next_header(tar, &entry);
      if (code == ARCHIVE_EOF) break;
      if (code < ARCHIVE_WARN) return broken("reading the archive");
      SBX_CHECK(take(entry), "unpacking");
    }
    SBX_CHECK(target_.finish(), "unpacking");
    SBX_CHECK(drain(), "unpacking");
    return members;
  }

 private:
  std::unexpected<Error> broken(const std::string& what) {
    const char* text = archive_error_string(tar_.get());
    return fail(ErrorCode::kUnavailable, what + ": " + (text != nullptr ? text : "it ends early"));
  }

  // The place of a member here.
  Result<MemberPath> place(const char* given) {
    if (given == nullptr || *given == '\0') return refuse("the sandbox sent a member without a name");
    const std::string_view text = given;
    if (text.front() == '/') return refuse("the sandbox sent the absolute path " + std::string(text));
    MemberPath path;
    bool first = true;
    for (std::size_t begin = 0; begin <= text.size();) {
      const std::size_t end = std::min(text.find('/', begin), text.size());
      std::string name(text.substr(begin, end - begin));
      begin = end + 1;
      if (name == "..") return refuse("the sandbox sent the path " + std::string(text));
      if (first) {
        if (!root_) root_ = name;
        if (name != *root_) return refuse(std::string(text) + " is outside of what was asked for");
        if (!options_.name.empty()) path.push_back(options_.name);
      } else if (!name.empty() && name != ".") {
        path.push_back(std::move(name));
      }
      first = false;
    }
    return path;
  }

  Result<void> take(::archive_entry* entry) {
    const auto path = SBX_TRY(place(archive_entry_pathname(entry)), "placing a member");
    const Target::Attributes attributes{archive_entry_mode(entry),
                                        {archive_entry_mtime(entry), archive_entry_mtime_nsec(entry)}};
    if (const char* existing = archive_entry_hardlink(entry); existing != nullptr) {
      const auto from = SBX_TRY(place(existing), "placing a link");
      return target_.make_hard_link(path, from);
    }
    const auto type = archive_entry_filetype(entry);
    if (path.size() <= 1 && options_.folder_only && type != AE_IFDIR) {
      return fail(ErrorCode::kInvalid,
                  "the destination folder " + options_.name + " does not exist, and the source is not a folder");
    }
    switch (type) {
      case AE_IFDIR:
        return target_.make_folder(path, attributes);
      case AE_IFREG:
        return take_file(entry, path, attributes);
      case AE_IFLNK:
        return take_symlink(entry, path, attributes);
      case AE_IFCHR:
      case AE_IFBLK:
        return refuse(to_string(path) + " is a device node");
      default:
        if (options_.on_note) options_.on_note("left out " + to_string(path) + ": neither file, folder nor link");
        return {};
    }
  }

  Result<void> take_file(::archive_entry* entry, const MemberPath& path, const Target::Attributes& attributes) {
    const auto file = SBX_TRY(target_.make_file(path), "unpacking");
    const void* data = nullptr;
    std::size_t size = 0;
    la_int64_t offset = 0;
    la_int64_t end = 0;
    for (int code = 0; (code = archive_read_data_block(tar_.get(), &data, &size, &offset)) != ARCHIVE_EOF;) {
      if (code < ARCHIVE_WARN) return broken("unpacking " + to_string(path));
      if (offset < 0) return refuse(to_string(path) + " has a piece at a negative offset");
      SBX_CHECK(write_at(file.get(), static_cast<const char*>(data), size, offset), "writing " + to_string(path));
      end = std::max(end, offset + static_cast<la_int64_t>(size));
    }
    if (archive_entry_size_is_set(entry) != 0) end = std::max<la_int64_t>(end, archive_entry_size(entry));
    SBX_CHECK(target_.finish_file(file.get(), attributes, end), "writing " + to_string(path));
    return {};
  }

  static Result<void> write_at(int file, const char* data, std::size_t size, off_t offset) {
    while (size > 0) {
      const ssize_t done = ::pwrite(file, data, size, offset);
      if (done < 0 && errno == EINTR) continue;
      if (done < 0) return fail_errno("writing", errno);
      data += done;
      size -= static_cast<std::size_t>(done);
      offset += done;
    }
    return {};
  }

  Result<void> take_symlink(::archive_entry* entry, const MemberPath& path, const Target::Attributes& attributes) {
    const char* link = archive_entry_symlink(entry);
    if (link == nullptr || *link == '\0') return refuse(to_string(path) + " is a link without a target");
    // Links are never followed here; this is for those who will. An absolute one does not pretend to stay inside.
    const std::filesystem::path target(link);
    const auto parent = std::filesystem::path(to_string(path)).parent_path();
    const auto resolved = (parent / target).lexically_normal();
    if (target.is_relative() && !resolved.empty() && *resolved.begin() == "..")
      return refuse("the link " + to_string(path) + " -> " + link + " leaves the destination");
    return target_.make_symlink(path, link, attributes);
  }

  // The sender is not to find its pipe closed over its padding.
  Result<void> drain() const {
    std::array<char, kReadSize> padding{};
    for (std::size_t total = 0; total < kMostPadding;) {
      const ssize_t got = ::read(options_.input, padding.data(), padding.size());
      if (got < 0 && errno == EINTR) continue;
      if (got < 0) return fail_errno("reading the archive", errno);
      if (got == 0) return {};
      total += static_cast<std::size_t>(got);
    }
    return refuse("the sandbox goes on sending after the archive's end");
  }

  const UnpackOptions& options_;
  std::unique_ptr<::archive, int (*)(::archive*)> tar_;
  Target target_;
  std::optional<std::string> root_;
};

}  // namespace

Result<std::size_t> unpack(const UnpackOptions& options) {
  Unpacker unpacker(options);
  return unpacker.run();
}

}  // namespace sbx::archive
