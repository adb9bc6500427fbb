// The images in HOME/images, one folder each:
//
//   <id>/root.ext4          sparse ext4 file system, read-only (0444): backing file of every template's disk
//   <id>/vmlinux            uncompressed ELF kernel, for QEMU's PVH boot
//   <id>/modules/*.ko       what the initramfs loads to find its root
//   <id>/manifest.json      ImageManifest; written last
//
// A folder appears complete (rename) or not at all, and is never changed. Blocking; any thread, any process.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace sbx::image {

struct ImageManifest {
  std::string id;                    // 16 hex digits
  std::string suite;                 // "trixie"
  std::string kernel_version;        // "6.12.48+deb13-cloud-amd64"
  std::vector<std::string> modules;  // file names below modules/, in the order to load them
  std::uint64_t disk_bytes = 0;      // virtual size of root.ext4
  std::uint64_t stored_bytes = 0;    // what the whole image takes on this host's disk
  std::uint64_t build_ms = 0;
  std::string created_at;  // RFC 3339, UTC
  bool operator==(const ImageManifest&) const = default;
};

std::string to_json(const ImageManifest& manifest);
// kInvalid if it is not a manifest, or names a module file outside modules/.
Result<ImageManifest> manifest_from_json(std::string_view text);

// 16 hex digits, so that an id never walks out of the images folder.
bool valid_image_id(std::string_view id);

// kNotFound if there is no such image.
Result<ImageManifest> load_image(const std::filesystem::path& images_folder, std::string_view id);

// Every complete image, oldest first; other entries are ignored. An absent folder holds no images.
Result<std::vector<ImageManifest>> list_images(const std::filesystem::path& images_folder);

// The caller makes sure that no template uses it. kNotFound if there is no such image. First a rename, so that nobody
// sees half an image.
Result<void> remove_image(const std::filesystem::path& images_folder, std::string_view id);

}  // namespace sbx::image
