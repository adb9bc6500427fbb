// unpack(): a tar stream that a sandbox sent, into a folder of the host. Hostile input: a member whose path is
// absolute, has "..", leads through a symbolic link or starts with another name than the archive's root; a hard link to
// what the archive did not bring; a device node; and a relative symbolic link that leaves the folder end it with
// kDenied and a message that names the member. What came before stays, below the folder. Set-id bits are dropped, FIFOs
// left out, existing files replaced and never written to, existing folders kept as they are. Blocking; any thread.
// Memory: constant, but for a few bytes for each file and folder.
#pragma once

#include <functional>
#include <string>

#include "base/result.h"

namespace sbx::archive {

struct UnpackOptions {
  int input = -1;
  int folder = -1;
  // What the archive's root, the first name of every member, is called here. "": it is a folder, and what it holds goes
  // into `folder` itself.
  std::string name;
  bool folder_only = false;                              // kInvalid if the root is anything else
  std::function<void(const std::string& what)> on_note;  // "left out x: ..."
};

// The number of members; 0 for an empty stream. kUnavailable if the stream ends early. Messages hold names as they
// came: not fit for a terminal.
Result<std::size_t> unpack(const UnpackOptions& options);

}  // namespace sbx::archive
