// Where `sbx cp` puts its source: docker's rules for folders, the same for both directions.
#pragma once

#include <optional>
#include <string>

#include "base/result.h"

namespace sbx::cli {

enum class Found { kFolder, kOther, kNothing, kNoParent };  // what the destination is now

struct CopySource {
  std::string name;
  bool contents = false;          // SRC/.: what is in it, not itself
  std::optional<bool> is_folder;  // unset: not known yet
};

struct Placement {
  std::string folder;        // exists
  std::string name;          // the source's name there; "": what is in the source goes into `folder` itself
  bool folder_only = false;  // the source must turn out to be a folder
};

// `destination` is absolute. kNotFound, kConflict or kInvalid as docker says.
Result<Placement> place_copy(const std::string& destination, Found found, const CopySource& source);

// "/a/b/" and "/a/b/." -> "/a/b"; "/" stays.
std::string without_trailing_slash(std::string path);

}  // namespace sbx::cli
