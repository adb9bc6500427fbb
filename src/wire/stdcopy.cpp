#include "wire/stdcopy.h"

#include <algorithm>

namespace sbx::wire {

std::string stdcopy_header(StdStream stream, std::size_t size) {
  std::string header(8, '\0');
  header[0] = static_cast<char>(stream);
  for (int i = 0; i < 4; ++i) header[4 + i] = static_cast<char>((size >> (24 - 8 * i)) & 0xffU);
  return header;
}

std::string stdcopy_frame(StdStream stream, std::string_view payload) {
  return stdcopy_header(stream, payload.size()).append(payload);
}

Result<void> StdcopyReader::feed(std::string_view input) {
  while (!input.empty()) {
    if (remaining_ == 0) {
      const auto take = std::min(input.size(), 8 - header_.size());
      header_.append(input.substr(0, take));
      input.remove_prefix(take);
      if (header_.size() < 8) return {};
      const auto kind = static_cast<unsigned char>(header_[0]);
      for (int i = 4; i < 8; ++i) remaining_ = remaining_ << 8U | static_cast<unsigned char>(header_[i]);
      if (kind < 1 || kind > 3 || header_[1] != 0 || header_[2] != 0 || header_[3] != 0 ||
          remaining_ > kMaxStdcopyFrame) {
        return fail(ErrorCode::kInvalid, "a malformed stdcopy header");
      }
      stream_ = static_cast<StdStream>(kind);
      header_.clear();
      status_.clear();
      if (remaining_ == 0 && stream_ == StdStream::kStatus) sink_(stream_, {});
      continue;
    }
    const auto piece = input.substr(0, std::min(input.size(), remaining_));
    input.remove_prefix(piece.size());
    remaining_ -= piece.size();
    if (stream_ != StdStream::kStatus) {
      sink_(stream_, piece);
      continue;
    }
    status_.append(piece);
    if (remaining_ == 0) sink_(stream_, status_);
  }
  return {};
}

}  // namespace sbx::wire
