// pack(): a file or a tree of the host as a tar stream (pax, sparse files as such, names as the bytes they are).
//
// The tree may change while it is read, and whoever changes it may be hostile (a workspace is the guest's to write):
// every folder and file is opened by its name in a folder that is open already, never through a symbolic link, so
// nothing outside the tree is ever read. Memory is constant but for the names of files with several links.
// Blocking; any thread.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "base/result.h"

namespace sbx::archive {

struct PackOptions {
  std::filesystem::path source;
  std::string name;          // of the root in the stream
  bool follow_link = false;  // what `source` points to, if it is a symbolic link itself; links inside stay links
  bool leave_out_root = false;
};

struct Packed {
  // Paths of sockets and device nodes, which are left out; the first few.
  std::vector<std::string> left_out;
};

// Everything in the stream is owned by root. kUnavailable if nobody reads `output` to the end.
Result<Packed> pack(const PackOptions& options, int output);

}  // namespace sbx::archive
