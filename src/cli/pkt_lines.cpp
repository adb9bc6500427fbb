#include "cli/pkt_lines.h"

#include <algorithm>
#include <charconv>

#include "cli/table.h"

namespace sbx::cli {
namespace {

constexpr std::size_t kLength = 4;
constexpr std::size_t kLongest = 65520;
// gitprotocol-pack(5), side-band-64k; 2 is progress.
constexpr char kPackData = 1;
constexpr char kError = 3;
constexpr std::string_view kKept("\0\t\n\r", 4);

}  // namespace

Result<std::string> PktLines::feed(std::string_view bytes) {
  std::string passed;
  while (!bytes.empty()) {
    if (pack_left_ > 0) {
      const auto piece = bytes.substr(0, pack_left_);
      passed += piece;
      pack_left_ -= piece.size();
      bytes.remove_prefix(piece.size());
      continue;
    }
    // The first byte of a packet tells whether it is pack data, of which nothing is held.
    const std::size_t next = expected_ == 0 ? kLength : held_.size() == kLength ? kLength + 1 : expected_;
    const auto piece = bytes.substr(0, next - held_.size());
    held_ += piece;
    bytes.remove_prefix(piece.size());
    if (held_.size() < next) break;
    if (expected_ == 0) {
      const auto [end, error] = std::from_chars(held_.data(), held_.data() + kLength, expected_, 16);
      if (error != std::errc() || end != held_.data() + kLength || expected_ == 3 || expected_ > kLongest)
        return fail(ErrorCode::kInvalid, "what the sandbox's git says is not git's protocol");
      if (expected_ > kLength) continue;
    } else if (held_[kLength] == kPackData) {
      pack_left_ = expected_ - held_.size();
    } else if (held_.size() < expected_) {
      continue;
    }
    // Length and band are no text.
    const bool banded = held_.size() > kLength && held_[kLength] >= kPackData && held_[kLength] <= kError;
    const std::size_t text = std::min(held_.size(), kLength) + (banded ? 1 : 0);
    passed += held_.substr(0, text) + masked(std::string_view(held_).substr(text), kKept);
    held_.clear();
    expected_ = 0;
  }
  return passed;
}

}  // namespace sbx::cli
