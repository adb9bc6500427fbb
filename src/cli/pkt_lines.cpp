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
// How a pack begins: "PACK" and a version below 256 in network byte order (gitformat-pack(5)). Where git expects text
// it takes such a packet for one that ends at the first NUL.
constexpr std::string_view kPackBegins("PACK\0\0\0", 7);

}  // namespace

// Of a packet that has begun so many that the next decision can be made: its length, its band, whether a pack begins
// with it, all of it.
std::size_t PktLines::bytes_to_hold() const {
  if (expected_ == 0) return kLength;
  if (held_.size() == kLength) return kLength + 1;
  const std::size_t beginning = std::min(expected_, kLength + 1 + kPackBegins.size());
  return held_[kLength] == kPackData && held_.size() < beginning ? beginning : expected_;
}

// Only once a pack has begun in the side band are packets that look like its data sure to be that: git says what else
// it gets in the words it got.
bool PktLines::is_pack_data() const {
  if (held_[kLength] != kPackData) return false;
  return in_pack_ || std::string_view(held_).substr(kLength + 1).starts_with(kPackBegins);
}

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
    const std::size_t next = bytes_to_hold();
    const auto piece = bytes.substr(0, next - held_.size());
    held_ += piece;
    bytes.remove_prefix(piece.size());
    if (held_.size() < next) break;
    if (expected_ == 0) {
      const auto [end, error] = std::from_chars(held_.data(), held_.data() + kLength, expected_, 16);
      if (error != std::errc() || end != held_.data() + kLength || expected_ == 3 || expected_ > kLongest)
        return fail(ErrorCode::kInvalid, "what the sandbox's git says is not git's protocol");
      if (expected_ > kLength) continue;
      in_pack_ = false;  // a pack ends with a flush packet
    } else if (is_pack_data()) {
      in_pack_ = true;
      pack_left_ = expected_ - held_.size();
      passed += held_;
      held_.clear();
      expected_ = 0;
      continue;
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
