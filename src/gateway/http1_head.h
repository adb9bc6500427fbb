// Heads of HTTP/1.1 messages (RFC 9112), read so strictly that no other reader can see another message in the same
// bytes: CRLF only, no folded lines, no space before a colon, one Host, one length. What is sent on is written anew
// from what was understood. Pure; bytes are a guest's or a server's.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"
#include "wire/http2_session.h"

namespace sbx::gateway {

using wire::HeaderList;

inline constexpr std::size_t kMaxHead = 64U << 10U;
inline constexpr std::size_t kMaxFields = 200;

struct Http1Request {
  std::string method;
  std::string target;  // origin-form, absolute-form, authority-form or "*", as sent
  bool http10 = false;
  HeaderList headers;  // names in lower case, in order
};

struct Http1Response {
  int status = 0;
  std::string reason;
  bool http10 = false;
  HeaderList headers;
};

// How a message's body ends (RFC 9112 section 6.3).
struct BodyLength {
  enum class Kind { kNone, kCounted, kChunked, kUntilClose };
  Kind kind = Kind::kNone;
  std::uint64_t size = 0;  // kCounted
};

// Where the head's closing empty line ends in `bytes`; 0: not there yet. kInvalid: longer than kMaxHead.
Result<std::size_t> head_size(std::string_view bytes);
// `head` is a whole head with its closing empty line. kInvalid says what is wrong with it.
Result<Http1Request> parse_request_head(std::string_view head);
Result<Http1Response> parse_response_head(std::string_view head);
// The fields of a trailer section, without its closing empty line.
Result<HeaderList> parse_fields(std::string_view lines);

// kInvalid where lengths contradict each other or a coding other than chunked is asked for.
Result<BodyLength> request_body(const Http1Request& request);
Result<BodyLength> response_body(const Http1Response& response, std::string_view request_method);

std::string write_head(const Http1Request& request);
std::string write_head(const Http1Response& response);

// Header lists, names in lower case.
const std::string* find_header(const HeaderList& headers, std::string_view name);
void remove_header(HeaderList& headers, std::string_view name);
void set_header(HeaderList& headers, std::string_view name, std::string value);
// Whether a comma-separated field holds the word, whatever its case.
bool header_has_token(const HeaderList& headers, std::string_view name, std::string_view token);
// Takes out what belongs to one connection only: Connection and the fields it names, Keep-Alive, TE, Upgrade,
// Proxy-*, Transfer-Encoding (RFC 9110 section 7.6.1).
void remove_hop_headers(HeaderList& headers);

}  // namespace sbx::gateway
