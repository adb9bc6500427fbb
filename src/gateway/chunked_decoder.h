// The chunked transfer coding (RFC 9112 section 7.1), decoded as it arrives and strictly: CRLF only, plain hexadecimal
// sizes, extensions dropped. Pure; bytes are a guest's or a server's.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.h"
#include "gateway/http1_head.h"

namespace sbx::gateway {

class ChunkedDecoder {
 public:
  // Takes what it can use off the front of `input` and returns the next piece of the body, which lies within `input`'s
  // memory. An empty piece: done(), or more input is needed.
  Result<std::string_view> feed(std::string_view& input);
  bool done() const { return state_ == State::kDone; }
  const HeaderList& trailers() const { return trailers_; }

 private:
  enum class State { kSize, kData, kDataEnd, kTrailers, kDone };
  Result<bool> take_line(std::string_view& input, std::size_t limit);

  State state_ = State::kSize;
  std::uint64_t left_ = 0;
  std::string line_;
  std::string trailer_lines_;
  HeaderList trailers_;
};

// `piece` as a chunk; it must not be empty.
std::string write_chunk(std::string_view piece);
std::string write_last_chunk(const HeaderList& trailers);

}  // namespace sbx::gateway
