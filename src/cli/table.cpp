#include "cli/table.h"

#include <algorithm>
#include <cstdio>

namespace sbx::cli {
namespace {

// The length of the character in UTF-8 that `text` begins with; 0 if it is none, or a control character.
std::size_t printable(std::string_view text) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  if (byte(0) < 0x80) return byte(0) >= 0x20 && byte(0) != 0x7f ? 1 : 0;
  const std::size_t length = byte(0) >= 0xf0 ? 4 : byte(0) >= 0xe0 ? 3 : 2;
  if (byte(0) < 0xc2 || byte(0) > 0xf4 || text.size() < length) return 0;
  for (std::size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xc0U) != 0x80) return 0;
  }
  if (byte(0) == 0xc2 && byte(1) < 0xa0) return 0;  // C1
  // Marks that make a terminal show text in another order than it has.
  const bool mark = (byte(0) == 0xe2 && byte(1) == 0x80 &&
                     (byte(2) >= 0xaa ? byte(2) <= 0xae : byte(2) >= 0x8e && byte(2) <= 0x8f)) ||
                    (byte(0) == 0xe2 && byte(1) == 0x81 && byte(2) >= 0xa6 && byte(2) <= 0xa9);
  return mark ? 0 : length;
}

template <typename Replace>
std::string shown_with(std::string_view text, std::string_view kept, Replace replace) {
  std::string shown;
  while (!text.empty()) {
    std::size_t length = printable(text);
    if (length == 0 && kept.find(text.front()) != std::string_view::npos) length = 1;
    if (length == 0) {
      shown += replace(static_cast<unsigned char>(text.front()));
      length = 1;
    } else {
      shown += text.substr(0, length);
    }
    text.remove_prefix(length);
  }
  return shown;
}

}  // namespace

std::string visible(std::string_view text, std::string_view kept) {
  static constexpr char kDigits[] = "0123456789abcdef";
  return shown_with(text, kept, [](unsigned char byte) {
    return std::string{'\\', 'x', kDigits[byte >> 4U], kDigits[byte & 15U]};
  });
}

std::string masked(std::string_view text, std::string_view kept) {
  return shown_with(text, kept, [](unsigned char) { return '?'; });
}

std::string format_table(const std::vector<std::vector<std::string>>& rows) {
  std::vector<std::size_t> widths;
  for (const auto& row : rows) {
    widths.resize(std::max(widths.size(), row.size()));
    for (std::size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  }
  std::string text;
  for (const auto& row : rows) {
    std::string line;
    for (std::size_t i = 0; i < row.size(); ++i) line += row[i] + std::string(widths[i] - row[i].size() + 3, ' ');
    line.erase(line.find_last_not_of(' ') + 1);
    text += line + "\n";
  }
  return text;
}

std::string format_size(unsigned long long bytes) {
  double value = static_cast<double>(bytes);
  const char* const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  std::size_t unit = 0;
  for (; value >= 1024 && unit < 4; ++unit) value /= 1024;
  char buffer[32];
  std::snprintf(buffer, sizeof buffer, unit == 0 ? "%.0f %s" : "%.1f %s", value, units[unit]);
  return buffer;
}

}  // namespace sbx::cli
