// ContentDecoder: the body of a response whose Content-Encoding is gzip or deflate (RFC 9110 section 8.4.1), in the
// clear as it comes. The bytes are a server's: what they may grow to is bounded. One executor.
#pragma once

#include <zlib.h>

#include <memory>
#include <string>
#include <string_view>

#include "base/result.h"

namespace sbx::gateway {

class ContentDecoder {
 public:
  // Null for a coding that is not known here.
  static std::unique_ptr<ContentDecoder> make(std::string_view coding);
  ~ContentDecoder();
  ContentDecoder(const ContentDecoder&) = delete;
  ContentDecoder& operator=(const ContentDecoder&) = delete;

  // kUnavailable: the data is not of this coding, or grows beyond all measure.
  Result<std::string> feed(std::string_view piece);
  // kUnavailable: the data ends too early.
  Result<void> finish() const;

 private:
  ContentDecoder() = default;

  z_stream stream_{};
  bool begun_ = false;
  bool ended_ = false;
};

}  // namespace sbx::gateway
