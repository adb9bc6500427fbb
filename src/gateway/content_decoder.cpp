#include "gateway/content_decoder.h"

#include <algorithm>

namespace sbx::gateway {

namespace {
constexpr std::size_t kStep = 64U << 10U;
// Of one piece as it was read (at most 256 KiB).
constexpr std::size_t kMaxGrown = 64U << 20U;
constexpr int kGzipOrZlib = 15 + 32;  // windowBits: the header tells
}  // namespace

std::unique_ptr<ContentDecoder> ContentDecoder::make(std::string_view coding) {
  std::string name(coding);
  std::ranges::transform(name, name.begin(),
                         [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
  if (name != "gzip" && name != "x-gzip" && name != "deflate") return nullptr;
  std::unique_ptr<ContentDecoder> decoder(new ContentDecoder);
  if (inflateInit2(&decoder->stream_, kGzipOrZlib) != Z_OK) return nullptr;
  return decoder;
}

ContentDecoder::~ContentDecoder() { inflateEnd(&stream_); }

Result<std::string> ContentDecoder::feed(std::string_view piece) {
  std::string out;
  stream_.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(piece.data()));
  stream_.avail_in = static_cast<uInt>(piece.size());
  while (!piece.empty()) {
    // A gzip body may have several members (RFC 1952 section 2.2).
    if (ended_ && inflateReset(&stream_) != Z_OK) return fail(ErrorCode::kInternal, "the decoder cannot begin again");
    const auto before = out.size();
    if (before >= kMaxGrown) return fail(ErrorCode::kUnavailable, "the compressed response grows beyond all measure");
    out.resize(before + kStep);
    stream_.next_out = reinterpret_cast<Bytef*>(out.data() + before);
    stream_.avail_out = kStep;
    const int rc = inflate(&stream_, Z_NO_FLUSH);
    out.resize(before + kStep - stream_.avail_out);
    begun_ = true;
    ended_ = rc == Z_STREAM_END;
    if (rc != Z_OK && rc != Z_STREAM_END && rc != Z_BUF_ERROR) {
      return fail(ErrorCode::kUnavailable, "the response is not encoded as it says");
    }
    const bool all = ended_ ? stream_.avail_in == 0 : stream_.avail_out != 0;
    if (all) break;
  }
  return out;
}

Result<void> ContentDecoder::finish() const {
  if (begun_ && !ended_) return fail(ErrorCode::kUnavailable, "the compressed response ends too early");
  return {};
}

}  // namespace sbx::gateway
