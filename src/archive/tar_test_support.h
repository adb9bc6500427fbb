// Archives as nobody honest makes them.
#pragma once

#include <archive.h>
#include <archive_entry.h>

#include <string>
#include <vector>

namespace sbx::archive {

struct Member {
  std::string path;
  unsigned type = AE_IFREG;
  std::string content = {};  // of a file; the target of a symbolic link
  std::string hard_link = {};
  unsigned mode = 0644;
};

inline std::string tar_of(const std::vector<Member>& members) {
  std::string bytes(1U << 20U, '\0');
  std::size_t used = 0;
  ::archive* tar = archive_write_new();
  archive_write_set_format_gnutar(tar);
  archive_write_open_memory(tar, bytes.data(), bytes.size(), &used);
  for (const auto& member : members) {
    archive_entry* entry = archive_entry_new();
    archive_entry_set_pathname(entry, member.path.c_str());
    archive_entry_set_filetype(entry, member.type);
    archive_entry_set_perm(entry, member.mode);
    archive_entry_set_size(entry, 0);
    archive_entry_set_mtime(entry, 1'600'000'000, 0);
    if (!member.hard_link.empty()) {
      archive_entry_set_hardlink(entry, member.hard_link.c_str());
    } else if (member.type == AE_IFLNK) {
      archive_entry_set_symlink(entry, member.content.c_str());
    } else if (member.type == AE_IFREG) {
      archive_entry_set_size(entry, static_cast<la_int64_t>(member.content.size()));
    }
    archive_write_header(tar, entry);
    if (member.type == AE_IFREG && member.hard_link.empty())
      archive_write_data(tar, member.content.data(), member.content.size());
    archive_entry_free(entry);
  }
  archive_write_close(tar);
  archive_write_free(tar);
  bytes.resize(used);
  return bytes;
}

}  // namespace sbx::archive
