// Where the CLI gets a secret from, straight into locked memory. Blocking.
#pragma once

#include <string>

#include "base/locked_string.h"

namespace sbx::cli {

// All of stdin, when it is no terminal; else one line typed in answer to `prompt` (on stderr) without echo. Blanks and
// newlines at its end are cut off. kInvalid if there is nothing, or for Ctrl-C.
Result<LockedString> read_secret(const std::string& prompt);

}  // namespace sbx::cli
