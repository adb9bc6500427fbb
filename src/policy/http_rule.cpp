#include "policy/http_rule.h"

#include <algorithm>
#include <array>

#include "policy/glob.h"
#include "policy/host.h"

namespace sbx::policy {
namespace {

constexpr std::size_t kLongestPath = 2048;

std::unexpected<Error> refuse(std::string_view text, const std::string& why) {
  return fail(ErrorCode::kInvalid, "path " + in_quotes(text) + " is not understood: " + why);
}

// Of a text that begins with '/': "/" has none, "/a/" has "a" and "".
std::vector<std::string_view> split_segments(std::string_view path) {
  std::vector<std::string_view> segments;
  while (path.size() > 1) {
    path.remove_prefix(1);
    const auto slash = std::min(path.find('/'), path.size());
    segments.push_back(path.substr(0, slash));
    path.remove_prefix(slash);
    if (path == "/") segments.emplace_back();
  }
  return segments;
}

int hex_value(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

}  // namespace

Result<std::string> parse_method(std::string_view text) {
  static constexpr std::array<std::string_view, 9> kMethods = {"GET",    "HEAD",    "POST",    "PUT",  "PATCH",
                                                               "DELETE", "OPTIONS", "CONNECT", "TRACE"};
  std::string method(text);
  std::ranges::transform(method, method.begin(), [](char c) { return c >= 'a' && c <= 'z' ? char(c - 32) : c; });
  if (method == "ANY") return std::string();
  if (std::ranges::find(kMethods, method) == kMethods.end()) {
    return fail(ErrorCode::kInvalid, "method " + in_quotes(text) + " is not known; use GET, HEAD, POST, PUT, PATCH, " +
                                         "DELETE, OPTIONS, CONNECT, TRACE or ANY");
  }
  return method;
}

std::optional<std::string> canonical_path(std::string_view request_path) {
  request_path = request_path.substr(0, request_path.find_first_of("?#"));
  if (!request_path.starts_with('/')) return std::nullopt;
  std::string path;
  for (std::size_t i = 0; i < request_path.size(); ++i) {
    char c = request_path[i];
    if (c == '%') {
      const int high = i + 1 < request_path.size() ? hex_value(request_path[i + 1]) : -1;
      const int low = i + 2 < request_path.size() ? hex_value(request_path[i + 2]) : -1;
      if (high < 0 || low < 0) return std::nullopt;
      c = static_cast<char>(high * 16 + low);
      i += 2;
      // A second decoding, by whoever is behind the server, would make another path of it.
      if (c == '/' || c == '%') return std::nullopt;
    }
    const auto byte = static_cast<unsigned char>(c);
    if (c == '\\' || byte < 0x20 || byte == 0x7f) return std::nullopt;
    path += c;
  }
  while (path.size() > 1 && path.ends_with('/') && !path.ends_with("//")) path.pop_back();
  for (auto segment : split_segments(path)) {
    // "..;x" is ".." with a parameter to some servers.
    segment = segment.substr(0, segment.find(';'));
    if (segment.empty() || segment == "." || segment == "..") return std::nullopt;
  }
  return path;
}

Result<PathPattern> PathPattern::parse(std::string_view text) {
  if (!text.starts_with('/')) return refuse(text, "it must begin with /");
  if (text.size() > kLongestPath) return refuse(text, "it is too long");
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte <= 0x20 || byte >= 0x7f || c == '\\' || c == '%' || c == '?' || c == '#' || c == ';')
      return refuse(text, "give it without query, percent escapes, parameters or odd characters");
  }
  PathPattern pattern;
  pattern.text_ = text;
  for (const auto segment : split_segments(text)) {
    if (segment.empty())
      return refuse(text, text.ends_with('/') ? "it must not end with /" : "it has an empty part between slashes");
    if (segment == "." || segment == "..") return refuse(text, "it must not contain . or .. parts");
    if (segment != "**" && (segment.find("**") != std::string_view::npos || !is_valid_glob(segment)))
      return refuse(text, "** stands alone between slashes, and a class is written [12], [a-f] or [!1]");
    pattern.segments_.emplace_back(segment);
  }
  return pattern;
}

bool PathPattern::matches(std::string_view canonical) const {
  const auto given = split_segments(canonical);
  std::size_t g = 0;
  std::size_t p = 0;
  std::size_t star = std::string::npos;
  std::size_t star_given = 0;
  while (g < given.size()) {
    if (p < segments_.size() && segments_[p] == "**") {
      star = p++;
      star_given = g;
    } else if (p < segments_.size() && glob_matches(segments_[p], given[g])) {
      ++p;
      ++g;
    } else if (star != std::string::npos) {
      p = star + 1;
      g = ++star_given;
    } else {
      return false;
    }
  }
  while (p < segments_.size() && segments_[p] == "**") ++p;
  return p == segments_.size();
}

}  // namespace sbx::policy
