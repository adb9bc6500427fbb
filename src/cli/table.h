// Text for a terminal: aligned columns, at least two spaces apart, no trailing blanks. Pure.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace sbx::cli {
std::string format_table(const std::vector<std::vector<std::string>>& rows);
std::string format_size(unsigned long long bytes);
// What a sandbox has named or written, for a terminal: control characters but those kept, marks that turn the order
// around, and what is no UTF-8, are \xNN.
std::string visible(std::string_view text, std::string_view kept = "");
// The same with a "?" for each such byte: as long as `text` is.
std::string masked(std::string_view text, std::string_view kept);
}  // namespace sbx::cli
