#include "gateway/http1_head.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <set>

namespace sbx::gateway {
namespace {

std::unexpected<Error> bad(std::string_view what) { return fail(ErrorCode::kInvalid, "HTTP: " + std::string(what)); }

bool is_token_char(char c) {
  if ((c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z')) return true;
  return c != '\0' && std::string_view("!#$%&'*+-.^_`|~").find(c) != std::string_view::npos;
}
bool is_token(std::string_view text) { return !text.empty() && std::ranges::all_of(text, is_token_char); }
bool is_visible(char c) { return c > ' ' && c < 0x7f; }
// Field values: no controls but the tab; bytes above 127 are let through as they are (obs-text).
bool is_value_char(char c) { return c == '\t' || static_cast<unsigned char>(c) >= ' ' ? c != 0x7f : false; }

char lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }
std::string lower(std::string_view text) {
  std::string result(text);
  std::ranges::transform(result, result.begin(), [](char c) { return lower(c); });
  return result;
}
bool same(std::string_view a, std::string_view b) {
  return std::ranges::equal(a, b, [](char x, char y) { return lower(x) == lower(y); });
}
std::string_view trim(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) text.remove_suffix(1);
  return text;
}

// Takes a line and its CRLF off the front.
Result<std::string_view> take_line(std::string_view& text) {
  const auto end = text.find("\r\n");
  if (end == std::string_view::npos) return bad("a line without an end");
  const auto line = text.substr(0, end);
  text.remove_prefix(end + 2);
  if (line.find_first_of(std::string_view("\r\n\0", 3)) != std::string_view::npos) {
    return bad("a bare CR, LF or NUL");
  }
  return line;
}

Result<bool> parse_version(std::string_view text) {
  if (text == "HTTP/1.1") return false;
  if (text == "HTTP/1.0") return true;
  return bad("a version other than 1.0 and 1.1");
}

template <typename Visit>
void each_token(const HeaderList& headers, std::string_view name, Visit visit) {
  for (const auto& [field, value] : headers) {
    if (field != name) continue;
    std::string_view rest = value;
    while (!rest.empty()) {
      const auto comma = std::min(rest.find(','), rest.size());
      if (const auto token = trim(rest.substr(0, comma)); !token.empty()) visit(token);
      rest.remove_prefix(std::min(comma + 1, rest.size()));
    }
  }
}

struct Lengths {
  std::optional<std::uint64_t> counted;
  bool chunked = false;
};

Result<Lengths> lengths(const HeaderList& headers, bool http10) {
  Lengths result;
  for (const auto& [name, value] : headers) {
    if (name == "content-length") {
      std::uint64_t size = 0;
      const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), size);
      if (result.counted) return bad("Content-Length comes twice");
      if (value.empty() || error != std::errc() || end != value.data() + value.size() ||
          size > std::uint64_t{1} << 62U) {
        return bad("Content-Length is not a number");
      }
      result.counted = size;
    } else if (name == "transfer-encoding") {
      if (result.chunked) return bad("Transfer-Encoding comes twice");
      if (!same(value, "chunked")) return bad("a Transfer-Encoding other than chunked");
      result.chunked = true;
    }
  }
  if (result.chunked && result.counted) return bad("both Content-Length and Transfer-Encoding");
  if (result.chunked && http10) return bad("Transfer-Encoding in HTTP/1.0");
  return result;
}

void append_fields(std::string& out, const HeaderList& headers) {
  for (const auto& [name, value] : headers) {
    out.append(name).append(": ").append(value).append("\r\n");
  }
  out.append("\r\n");
}

}  // namespace

Result<std::size_t> head_size(std::string_view bytes) {
  const auto end = bytes.substr(0, kMaxHead).find("\r\n\r\n");
  if (end != std::string_view::npos) return end + 4;
  if (bytes.size() >= kMaxHead) return bad("a head longer than " + std::to_string(kMaxHead) + " bytes");
  return std::size_t{0};
}

Result<HeaderList> parse_fields(std::string_view lines) {
  HeaderList headers;
  while (!lines.empty()) {
    const auto line = SBX_TRY(take_line(lines), "reading a header");
    if (headers.size() >= kMaxFields) return bad("more than " + std::to_string(kMaxFields) + " fields");
    const auto colon = line.find(':');
    if (colon == std::string_view::npos) return bad("a field without a colon, or a folded line");
    const auto name = line.substr(0, colon);
    if (!is_token(name)) return bad("a field name with bytes that do not belong there");
    const auto value = trim(line.substr(colon + 1));
    if (!std::ranges::all_of(value, is_value_char)) return bad("control characters in a field");
    headers.emplace_back(lower(name), value);
  }
  return headers;
}

Result<Http1Request> parse_request_head(std::string_view head) {
  if (!head.ends_with("\r\n\r\n")) return bad("a head without an end");
  head.remove_suffix(2);
  const auto line = SBX_TRY(take_line(head), "reading the request line");
  const auto first = line.find(' ');
  const auto last = line.rfind(' ');
  if (first == std::string_view::npos || first == last) return bad("a malformed request line");
  Http1Request request;
  request.method = line.substr(0, first);
  request.target = line.substr(first + 1, last - first - 1);
  request.http10 = SBX_TRY(parse_version(line.substr(last + 1)), "reading the request line");
  if (!is_token(request.method) || request.method.size() > 32) return bad("a malformed method");
  if (request.target.empty() || !std::ranges::all_of(request.target, is_visible)) return bad("a malformed target");
  if (request.target.find('#') != std::string::npos) return bad("a fragment in the target");
  request.headers = SBX_TRY(parse_fields(head), "reading the request");
  const auto hosts = std::ranges::count(request.headers, "host", [](const auto& field) { return field.first; });
  if (hosts > 1) return bad("Host comes twice");
  if (hosts == 0 && !request.http10) return bad("no Host");
  SBX_CHECK(request_body(request), "reading the request");
  return request;
}

Result<Http1Response> parse_response_head(std::string_view head) {
  if (!head.ends_with("\r\n\r\n")) return bad("a head without an end");
  head.remove_suffix(2);
  const auto line = SBX_TRY(take_line(head), "reading the status line");
  Http1Response response;
  if (line.size() < 12 || line[8] != ' ' || (line.size() > 12 && line[12] != ' '))
    return bad("a malformed status line");
  response.http10 = SBX_TRY(parse_version(line.substr(0, 8)), "reading the status line");
  const auto digits = line.substr(9, 3);
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + 3, response.status);
  if (error != std::errc() || end != digits.data() + 3 || response.status < 100) return bad("a malformed status");
  if (line.size() > 13) response.reason = line.substr(13);
  if (!std::ranges::all_of(response.reason, is_value_char)) return bad("control characters in the status line");
  response.headers = SBX_TRY(parse_fields(head), "reading the response");
  return response;
}

Result<BodyLength> request_body(const Http1Request& request) {
  const auto found = SBX_TRY(lengths(request.headers, request.http10), "reading the request's length");
  BodyLength body;
  if (found.chunked) {
    body.kind = BodyLength::Kind::kChunked;
  } else if (found.counted && *found.counted > 0) {
    body.kind = BodyLength::Kind::kCounted;
    body.size = *found.counted;
  }
  return body;
}

Result<BodyLength> response_body(const Http1Response& response, std::string_view request_method) {
  const auto found = SBX_TRY(lengths(response.headers, response.http10), "reading the response's length");
  BodyLength body;
  if (request_method == "HEAD" || response.status < 200 || response.status == 204 || response.status == 304) {
    return body;
  }
  if (found.chunked) {
    body.kind = BodyLength::Kind::kChunked;
  } else if (!found.counted) {
    body.kind = BodyLength::Kind::kUntilClose;
  } else if (*found.counted > 0) {
    body.kind = BodyLength::Kind::kCounted;
    body.size = *found.counted;
  }
  return body;
}

std::string write_head(const Http1Request& request) {
  std::string out = request.method + " " + request.target + " HTTP/1.1\r\n";
  append_fields(out, request.headers);
  return out;
}

std::string write_head(const Http1Response& response) {
  std::string out = "HTTP/1.1 " + std::to_string(response.status) + " " + response.reason + "\r\n";
  append_fields(out, response.headers);
  return out;
}

const std::string* find_header(const HeaderList& headers, std::string_view name) {
  const auto found =
      std::ranges::find(headers, name, [](const auto& field) -> const std::string& { return field.first; });
  return found == headers.end() ? nullptr : &found->second;
}

void remove_header(HeaderList& headers, std::string_view name) {
  std::erase_if(headers, [&](const auto& field) { return field.first == name; });
}

void set_header(HeaderList& headers, std::string_view name, std::string value) {
  remove_header(headers, name);
  headers.emplace_back(name, std::move(value));
}

bool header_has_token(const HeaderList& headers, std::string_view name, std::string_view token) {
  bool found = false;
  each_token(headers, name, [&](std::string_view word) { found = found || same(word, token); });
  return found;
}

void remove_hop_headers(HeaderList& headers) {
  std::set<std::string, std::less<>> named{
      "connection",         "keep-alive",        "proxy-connection", "te", "upgrade", "proxy-authorization",
      "proxy-authenticate", "transfer-encoding", "http2-settings"};
  // What may be named: a connection option that is the name of a field which routes or frames a message is an attack.
  static const std::set<std::string, std::less<>> kept{"host", "content-length", "authorization", "cookie"};
  each_token(headers, "connection", [&](std::string_view word) {
    if (auto name = lower(word); !kept.contains(name)) named.insert(std::move(name));
  });
  std::erase_if(headers, [&](const auto& field) { return named.contains(field.first); });
}

}  // namespace sbx::gateway
