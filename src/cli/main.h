// The `sbx` program: argv in, exit status out.
#pragma once

#include <string>
#include <vector>

namespace sbx::cli {
int run(std::vector<std::string> argv);
}  // namespace sbx::cli
