// Wall-clock times as milliseconds since 1970 (UTC), their RFC 3339 text, and lengths of time as people write them.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.h"

namespace sbx::store {

std::int64_t now_ms();
// "2026-11-23T11:30:54.120Z"; "" for 0.
std::string rfc3339(std::int64_t ms);
// The inverse; accepts any fraction and a numeric offset.
Result<std::int64_t> parse_rfc3339(std::string_view text);
// Go's notation: "168h", "1h30m", "90s", "500ms". In milliseconds.
Result<std::int64_t> parse_duration(std::string_view text);
// "3 minutes", "2 hours": for tables.
std::string describe_duration(std::int64_t ms);

}  // namespace sbx::store
