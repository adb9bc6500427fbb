// Makes the root image that sandboxes start from, by running the recipe's build.sh (mmdebstrap and mke2fs).
//
// Takes one to five minutes and needs a Debian archive; as root, or as a user with a range in /etc/subuid.
#pragma once

#include <filesystem>
#include <functional>
#include <string>

#include "base/result.h"
#include "image/manifest.h"
#include "image/recipe.h"

namespace sbx::image {

struct BuildOptions {
  Recipe recipe;
  std::filesystem::path images_folder;  // HOME/images; made if absent
  std::string mirror;                   // URI of a Debian archive; "" = $SBX_DEBIAN_MIRROR, else as the host's apt
};

// Called with one line for a person at each step, on the thread that builds.
using Progress = std::function<void(const std::string& step)>;

// The image of options.recipe: at once if it is there, else built. One builder at a time (flock on
// images_folder/.lock): a second one waits, and then finds the first one's image. Works in a folder beside the images
// and renames it at the end, so a build that fails or is killed leaves no image; its rest is removed by the next one.
// On failure the error holds the last lines of the log. Blocks: call it on a worker thread.
Result<ImageManifest> build_image(const BuildOptions& options, const Progress& progress);

// Bytes that a file or a folder with all below it takes on disk (sparse files count what they hold).
std::uint64_t bytes_on_disk(const std::filesystem::path& path);

}  // namespace sbx::image
