#include "image/manifest.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/file.h"

namespace sbx::image {
namespace {

bool plain_file_name(std::string_view name) {
  return !name.empty() && name.front() != '.' && name.find('/') == std::string_view::npos &&
         name.find('\0') == std::string_view::npos;
}

}  // namespace

std::string to_json(const ImageManifest& manifest) {
  const nlohmann::json json{{"id", manifest.id},
                            {"suite", manifest.suite},
                            {"kernel_version", manifest.kernel_version},
                            {"modules", manifest.modules},
                            {"disk_bytes", manifest.disk_bytes},
                            {"stored_bytes", manifest.stored_bytes},
                            {"build_ms", manifest.build_ms},
                            {"created_at", manifest.created_at}};
  return json.dump(2) + "\n";
}

Result<ImageManifest> manifest_from_json(std::string_view text) {
  try {
    const auto json = nlohmann::json::parse(text);
    ImageManifest manifest{.id = json.at("id"),
                           .suite = json.at("suite"),
                           .kernel_version = json.at("kernel_version"),
                           .modules = json.at("modules").get<std::vector<std::string>>(),
                           .disk_bytes = json.at("disk_bytes"),
                           .stored_bytes = json.value("stored_bytes", std::uint64_t{0}),
                           .build_ms = json.value("build_ms", std::uint64_t{0}),
                           .created_at = json.value("created_at", "")};
    if (!valid_image_id(manifest.id) || !std::ranges::all_of(manifest.modules, plain_file_name)) {
      return fail(ErrorCode::kInvalid, "the image manifest has an impossible id or module name");
    }
    return manifest;
  } catch (const nlohmann::json::exception& error) {
    return fail(ErrorCode::kInvalid, std::string("not an image manifest: ") + error.what());
  }
}

bool valid_image_id(std::string_view id) {
  return id.size() == 16 && id.find_first_not_of("0123456789abcdef") == std::string_view::npos;
}

Result<ImageManifest> load_image(const std::filesystem::path& images_folder, std::string_view id) {
  if (!valid_image_id(id)) return fail(ErrorCode::kInvalid, "an image id is 16 hex digits, not " + std::string(id));
  const auto path = images_folder / id / "manifest.json";
  std::error_code error;
  if (!std::filesystem::exists(path, error)) {
    return fail(ErrorCode::kNotFound, "there is no image " + std::string(id) + "; make it with: sbx image build");
  }
  const auto text = SBX_TRY(read_file(path), "reading an image's manifest");
  auto manifest = SBX_TRY(manifest_from_json(text), "reading " + path.string());
  if (manifest.id != id) return fail(ErrorCode::kInvalid, path.string() + " is the manifest of another image");
  return manifest;
}

Result<std::vector<ImageManifest>> list_images(const std::filesystem::path& images_folder) {
  std::vector<ImageManifest> images;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(images_folder, error)) {
    const std::string name = entry.path().filename().string();
    if (!valid_image_id(name)) continue;
    if (auto manifest = load_image(images_folder, name)) images.push_back(std::move(*manifest));
  }
  if (error && error != std::errc::no_such_file_or_directory) {
    return fail_errno("listing " + images_folder.string(), error.value());
  }
  std::ranges::sort(images, {}, [](const ImageManifest& m) { return std::pair(m.created_at, m.id); });
  return images;
}

Result<void> remove_image(const std::filesystem::path& images_folder, std::string_view id) {
  SBX_TRY(load_image(images_folder, id), "removing an image");
  const auto doomed = images_folder / (".removing-" + std::string(id));
  std::error_code error;
  std::filesystem::remove_all(doomed, error);
  std::filesystem::rename(images_folder / id, doomed, error);
  if (error) return fail_errno("removing image " + std::string(id), error.value());
  std::filesystem::remove_all(doomed, error);
  if (error) return fail_errno("removing image " + std::string(id), error.value());
  return {};
}

}  // namespace sbx::image
