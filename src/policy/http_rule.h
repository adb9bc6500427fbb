// What a rule may say about HTTP requests: methods and paths. Pure.
//
// Servers differ in what they make of "/a/../b", "//", "%2f" or "\". A request path that two servers could read in two
// ways has no canonical form, and no rule about paths lets it pass.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace sbx::policy {

// GET HEAD POST PUT PATCH DELETE OPTIONS CONNECT TRACE, in any case, as upper case. "ANY" is given back as "".
Result<std::string> parse_method(std::string_view text);

// "/Repos/x/?q=1" -> "/Repos/x": without query and trailing slashes, percent escapes decoded. nullopt: dot segments,
// empty segments, backslashes, control characters, escapes that are broken or stand for a slash, or no leading slash.
std::optional<std::string> canonical_path(std::string_view request_path);

// "/repos/acme/**": ** is any number of segments (none too), * and the other wildcards of glob.h stay within one.
class PathPattern {
 public:
  // kInvalid: no leading slash, trailing slash, query, percent escapes, dot or empty segments.
  static Result<PathPattern> parse(std::string_view text);
  bool matches(std::string_view canonical) const;
  const std::string& text() const { return text_; }

 private:
  std::string text_;
  std::vector<std::string> segments_;
};

}  // namespace sbx::policy
