#include "cli/copy_placement.h"

#include <filesystem>

namespace sbx::cli {

std::string without_trailing_slash(std::string path) {
  for (;;) {
    if (path.size() > 1 && path.ends_with('/'))
      path.pop_back();
    else if (path.size() > 1 && path.ends_with("/."))
      path.resize(path.size() - 1);
    else
      return path;
  }
}

Result<Placement> place_copy(const std::string& destination, Found found, const CopySource& source) {
  const std::string bare = without_trailing_slash(destination);
  const bool asks_for_folder = bare != destination;
  if (found == Found::kFolder) return Placement{bare, source.contents ? "" : source.name, false};
  if (found == Found::kNoParent) {
    return fail(ErrorCode::kNotFound,
                "the folder " + std::filesystem::path(bare).parent_path().native() + " does not exist; make it first");
  }
  const bool from_folder = source.contents || source.is_folder.value_or(false);
  if (found == Found::kOther && from_folder)
    return fail(ErrorCode::kConflict, "cannot copy a folder over " + bare + ", which is none");
  if (found == Found::kOther && asks_for_folder) return fail(ErrorCode::kConflict, bare + " is not a folder");
  const bool is_file = source.is_folder.has_value() && !from_folder;
  if (found == Found::kNothing && asks_for_folder && is_file)
    return fail(ErrorCode::kNotFound, "the destination folder " + bare + " does not exist");
  const std::filesystem::path path(bare);
  return Placement{path.parent_path(), path.filename(), source.contents || (asks_for_folder && !from_folder)};
}

}  // namespace sbx::cli
