// Patterns of paths against paths, and journals of changes. Beyond not crashing: a pattern without wildcards that is
// read matches itself and what is below it, and no journal names a path that leads out of its workspace.
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "files/patterns.h"
#include "sandbox/changes.h"

namespace {

void require(bool holds) {
  if (!holds) std::abort();
}

void match(std::string_view text) {
  const auto end = text.find('\n');
  const std::string pattern(text.substr(0, end));
  const auto path = end == std::string_view::npos ? std::string_view() : text.substr(end + 1);
  const auto patterns = sbx::files::Patterns::parse({pattern});
  if (!patterns) return;
  (void)patterns->matches(path);
  (void)patterns->lies_on_way(path, sbx::files::Patterns::Kind::kFile);
  (void)patterns->lies_on_way(path, sbx::files::Patterns::Kind::kOther);
  if (pattern.find_first_of("*?[\\!") != std::string::npos) return;
  std::string itself = pattern.starts_with('/') ? pattern.substr(1) : pattern;
  if (itself.ends_with('/')) itself.pop_back();
  require(patterns->matches(itself));
  require(patterns->matches(itself + "/below"));
}

void within(const std::string& path) {
  const std::string framed = "/" + path + "/";
  require(framed.find("/../") == std::string::npos && path.find('\0') == std::string::npos && !path.starts_with('/'));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const std::string_view text(reinterpret_cast<const char*>(data + 1), size - 1);
  if (data[0] % 2 == 0) {
    match(text);
    return 0;
  }
  const auto journal = sbx::sandbox::parse_journal(text);
  for (const auto& entry : journal.entries) within(entry.path);
  for (const auto& report : journal.reports) within(report.path);
  return 0;
}
