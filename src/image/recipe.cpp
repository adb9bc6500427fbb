#include "image/recipe.h"

#include <openssl/evp.h>

#include <cstdlib>
#include <memory>
#include <vector>

#include "base/file.h"

namespace sbx::image {
namespace {

// Raised when the C++ side of the build changes what comes out (file names, formats).
constexpr const char* kFormat = "sbx-image-1";
constexpr const char* kFiles[] = {"build.sh", "customize.sh", "modules.txt", "packages.txt"};

Result<std::string> sha256_hex(const std::string& data) {
  const std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> context(EVP_MD_CTX_new(), &EVP_MD_CTX_free);
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned length = 0;
  if (!context || EVP_DigestInit_ex(context.get(), EVP_sha256(), nullptr) != 1 ||
      EVP_DigestUpdate(context.get(), data.data(), data.size()) != 1 ||
      EVP_DigestFinal_ex(context.get(), digest, &length) != 1) {
    return fail(ErrorCode::kInternal, "SHA-256 is not available from OpenSSL");
  }
  std::string hex;
  for (unsigned i = 0; i < length; ++i) {
    constexpr const char* kDigits = "0123456789abcdef";
    hex += kDigits[digest[i] >> 4U];
    hex += kDigits[digest[i] & 15U];
  }
  return hex;
}

}  // namespace

Result<Recipe> find_recipe() {
  std::vector<std::filesystem::path> folders;
  if (const char* share = std::getenv("SBX_SHARE_DIR"); share != nullptr && *share != '\0') {
    folders.emplace_back(std::filesystem::path(share) / "image");
  } else {
    std::error_code error;
    const auto program = std::filesystem::read_symlink("/proc/self/exe", error);
    if (!error) folders.push_back(program.parent_path().parent_path() / "share/sbx/image");
    folders.emplace_back(SBX_SOURCE_IMAGE_FOLDER);
  }
  for (const auto& folder : folders) {
    std::error_code error;
    if (std::filesystem::is_regular_file(folder / kFiles[0], error)) {
      Recipe recipe;
      recipe.folder = folder;
      return recipe;
    }
  }
  return fail(ErrorCode::kNotFound, "no image recipe in " + folders.back().string() +
                                        "; set SBX_SHARE_DIR to the folder that holds image/build.sh");
}

Result<std::string> image_id(const Recipe& recipe) {
  // Every part is preceded by its length, so that no two recipes give the same bytes.
  std::string all;
  const auto add = [&all](std::string_view part) { all += std::to_string(part.size()) + ":" + std::string(part); };
  add(kFormat);
  add(recipe.suite);
  add(std::to_string(recipe.disk_bytes));
  for (const char* name : kFiles) {
    add(name);
    add(SBX_TRY(read_file(recipe.folder / name), "reading the image recipe"));
  }
  return SBX_TRY(sha256_hex(all), "hashing the image recipe").substr(0, 16);
}

}  // namespace sbx::image
