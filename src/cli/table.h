// Aligned columns, at least two spaces apart, no trailing blanks. Pure.
#pragma once

#include <string>
#include <vector>

namespace sbx::cli {
std::string format_table(const std::vector<std::vector<std::string>>& rows);
std::string format_size(unsigned long long bytes);
}  // namespace sbx::cli
