#include "gateway/chunked_decoder.h"

#include <algorithm>
#include <array>
#include <charconv>

namespace sbx::gateway {
namespace {

constexpr std::size_t kMaxSizeLine = 1024;
constexpr std::size_t kMaxTrailers = 16U << 10U;
constexpr std::size_t kMaxDigits = 15;  // 2^60 is longer than any body

std::unexpected<Error> bad(std::string_view what) { return fail(ErrorCode::kInvalid, "HTTP: " + std::string(what)); }

Result<std::uint64_t> parse_size(std::string_view line) {
  const auto digits = line.substr(0, line.find(';'));
  if (digits.empty() || digits.size() > kMaxDigits) return bad("a malformed chunk size");
  std::uint64_t size = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), size, 16);
  if (error != std::errc() || end != digits.data() + digits.size()) return bad("a malformed chunk size");
  return size;
}

// These would change how the message is read, and it has been read (RFC 9110 section 6.5.1).
bool belongs_in_head(std::string_view name) {
  static constexpr std::array<std::string_view, 12> kNames{
      "transfer-encoding", "content-length", "host",       "content-encoding", "content-type", "trailer",
      "connection",        "authorization",  "set-cookie", "cookie",           "te",           "upgrade"};
  return std::ranges::find(kNames, name) != kNames.end();
}

}  // namespace

// Moves bytes to line_ until it ends with CRLF, which it then loses; false: more input is needed.
Result<bool> ChunkedDecoder::take_line(std::string_view& input, std::size_t limit) {
  while (!input.empty()) {
    const char c = input.front();
    input.remove_prefix(1);
    const bool after_cr = !line_.empty() && line_.back() == '\r';
    if (c == '\n' && after_cr) {
      line_.pop_back();
      return true;
    }
    if (c == '\n' || after_cr || c == '\0') return bad("a bare CR, LF or NUL in chunked coding");
    line_.push_back(c);
    if (line_.size() > limit) return bad("a line of chunked coding is too long");
  }
  return false;
}

Result<std::string_view> ChunkedDecoder::feed(std::string_view& input) {
  while (!input.empty() && state_ != State::kDone) {
    if (state_ == State::kData) {
      const auto piece = input.substr(0, std::min<std::uint64_t>(left_, input.size()));
      input.remove_prefix(piece.size());
      left_ -= piece.size();
      if (left_ == 0) state_ = State::kDataEnd;
      return piece;
    }
    const std::size_t limit = state_ == State::kTrailers ? kMaxTrailers : kMaxSizeLine;
    if (!SBX_TRY(take_line(input, limit), "reading chunks")) return std::string_view();
    const auto line = std::exchange(line_, {});
    if (state_ == State::kDataEnd) {
      if (!line.empty()) return bad("a chunk is longer than it said");
      state_ = State::kSize;
    } else if (state_ == State::kSize) {
      left_ = SBX_TRY(parse_size(line), "reading chunks");
      state_ = left_ > 0 ? State::kData : State::kTrailers;
    } else if (!line.empty()) {
      trailer_lines_ += line + "\r\n";
      if (trailer_lines_.size() > kMaxTrailers) return bad("the trailers are too long");
    } else {
      trailers_ = SBX_TRY(parse_fields(trailer_lines_), "reading trailers");
      std::erase_if(trailers_, [](const auto& field) { return belongs_in_head(field.first); });
      state_ = State::kDone;
    }
  }
  return std::string_view();
}

std::string write_chunk(std::string_view piece) {
  std::array<char, 16> digits{};
  const auto end = std::to_chars(digits.data(), digits.data() + digits.size(), piece.size(), 16).ptr;
  std::string out;
  out.reserve(piece.size() + 24);
  out.append(digits.data(), end).append("\r\n").append(piece).append("\r\n");
  return out;
}

std::string write_last_chunk(const HeaderList& trailers) {
  std::string out = "0\r\n";
  for (const auto& [name, value] : trailers) out.append(name).append(": ").append(value).append("\r\n");
  out.append("\r\n");
  return out;
}

}  // namespace sbx::gateway
