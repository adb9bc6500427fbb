// Docker's stdcopy framing (8-byte header: stream, 0, 0, 0, size as 32-bit big endian; see "Attach to a container" in
// the Docker Engine API), with one stream of our own for the final status. Thread safety: none.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "base/result.h"

namespace sbx::wire {

enum class StdStream : std::uint8_t { kStdout = 1, kStderr = 2, kStatus = 3 };
inline constexpr std::size_t kMaxStdcopyFrame = 1U << 20U;

std::string stdcopy_header(StdStream stream, std::size_t size);  // 8 bytes
std::string stdcopy_frame(StdStream stream, std::string_view payload);

// Splits a byte stream into frames. Payload of kStdout and kStderr is handed on in pieces as it arrives; kStatus whole.
class StdcopyReader {
 public:
  using Sink = std::function<void(StdStream, std::string_view)>;
  explicit StdcopyReader(Sink sink) : sink_(std::move(sink)) {}
  // kInvalid on an unknown stream, a non-zero pad or a size over kMaxStdcopyFrame; the reader is unusable then.
  Result<void> feed(std::string_view input);

 private:
  Sink sink_;
  std::string header_;
  std::string status_;
  std::size_t remaining_ = 0;
  StdStream stream_ = StdStream::kStdout;
};

}  // namespace sbx::wire
