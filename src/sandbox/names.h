// The rules for a sandbox's name, and the name made up for one that was given none.
#pragma once

#include <string>
#include <string_view>

#include "base/result.h"

namespace sbx::sandbox {

// 2 to 63 ASCII letters, digits, '-' and '.', beginning and ending with a letter or digit; not "default".
Result<void> check_name(std::string_view name);

// "<agent>-<last folder of the workspace>", made valid: other characters become '-', runs of '-' one.
std::string derive_name(std::string_view agent, std::string_view workspace);

}  // namespace sbx::sandbox
