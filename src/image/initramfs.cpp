#include "image/initramfs.h"

#include <archive.h>
#include <archive_entry.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <memory>
#include <string>

#include "base/file.h"
#include "image/manifest.h"

namespace sbx::image {
namespace {

struct ArchiveDeleter {
  void operator()(archive* a) const { archive_write_free(a); }
  void operator()(archive_entry* e) const { archive_entry_free(e); }
};
using ArchivePtr = std::unique_ptr<archive, ArchiveDeleter>;
using EntryPtr = std::unique_ptr<archive_entry, ArchiveDeleter>;

std::unexpected<Error> archive_failure(archive* a, std::string_view what) {
  const char* reason = archive_error_string(a);
  return fail(ErrorCode::kInternal, std::string(what) + ": " + (reason != nullptr ? reason : "unknown error"));
}

// Collects what libarchive writes.
la_ssize_t append(archive*, void* data, const void* buffer, size_t length) {
  static_cast<std::string*>(data)->append(static_cast<const char*>(buffer), length);
  return static_cast<la_ssize_t>(length);
}

Result<void> add_entry(archive* a, const std::string& name, unsigned mode, std::string_view data, dev_t device = 0) {
  const EntryPtr entry(archive_entry_new());
  archive_entry_set_pathname(entry.get(), name.c_str());
  archive_entry_set_filetype(entry.get(), mode & S_IFMT);
  archive_entry_set_perm(entry.get(), mode & 07777U);
  archive_entry_set_nlink(entry.get(), 1);
  archive_entry_set_mtime(entry.get(), 0, 0);
  archive_entry_set_size(entry.get(), static_cast<la_int64_t>(data.size()));
  if (device != 0) archive_entry_set_rdev(entry.get(), device);
  if (archive_write_header(a, entry.get()) < ARCHIVE_OK) return archive_failure(a, "adding " + name);
  if (!data.empty() && archive_write_data(a, data.data(), data.size()) != static_cast<la_ssize_t>(data.size())) {
    return archive_failure(a, "writing " + name);
  }
  return {};
}

}  // namespace

Result<void> write_initramfs(const std::filesystem::path& guest_binary, const std::filesystem::path& image_folder,
                             const std::filesystem::path& out) {
  const auto manifest_text = SBX_TRY(read_file(image_folder / "manifest.json"), "reading the image's manifest");
  const auto manifest = SBX_TRY(manifest_from_json(manifest_text), "reading the image's manifest");
  const auto guest = SBX_TRY(read_file(guest_binary, 256U << 20U), "reading the guest binary");

  std::string bytes;
  const ArchivePtr a(archive_write_new());
  if (archive_write_set_format_cpio_newc(a.get()) != ARCHIVE_OK ||
      archive_write_add_filter_gzip(a.get()) != ARCHIVE_OK ||
      archive_write_set_filter_option(a.get(), "gzip", "compression-level", "6") != ARCHIVE_OK ||
      archive_write_set_filter_option(a.get(), "gzip", "timestamp", nullptr) != ARCHIVE_OK ||
      archive_write_set_bytes_in_last_block(a.get(), 1) != ARCHIVE_OK ||
      archive_write_open(a.get(), &bytes, nullptr, append, nullptr) != ARCHIVE_OK) {
    return archive_failure(a.get(), "starting the initramfs");
  }
  for (const char* folder : {"dev", "proc", "sys", "run", "newroot", "modules"}) {
    SBX_CHECK(add_entry(a.get(), folder, S_IFDIR | 0755U, {}), "making the initramfs");
  }
  SBX_CHECK(add_entry(a.get(), "dev/console", S_IFCHR | 0600U, {}, makedev(5, 1)), "making the initramfs");
  SBX_CHECK(add_entry(a.get(), "init", S_IFREG | 0755U, guest), "making the initramfs");
  std::string list;
  for (const auto& name : manifest.modules) {
    const auto module = SBX_TRY(read_file(image_folder / "modules" / name), "reading a kernel module");
    SBX_CHECK(add_entry(a.get(), "modules/" + name, S_IFREG | 0644U, module), "making the initramfs");
    list += name + "\n";
  }
  SBX_CHECK(add_entry(a.get(), "modules.list", S_IFREG | 0644U, list), "making the initramfs");
  if (archive_write_close(a.get()) != ARCHIVE_OK) return archive_failure(a.get(), "ending the initramfs");
  return write_file_atomically(out, bytes, 0644);
}

}  // namespace sbx::image
