// Wildcards within one label of a host name or one segment of a path: `*` is any run of characters, `?` one character,
// `[ab0-9]` one of these, `[!ab]` one that is not. Pure; linear in pattern times text, whatever the pattern.
#pragma once

#include <string_view>

namespace sbx::policy {

bool has_wildcards(std::string_view glob);
// Brackets are closed, not empty and not nested, ranges ascend.
bool is_valid_glob(std::string_view glob);
// Of a valid glob and the whole text.
bool glob_matches(std::string_view glob, std::string_view text);

}  // namespace sbx::policy
