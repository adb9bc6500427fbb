#include "wire/capsules.h"

#include <algorithm>
#include <optional>

namespace sbx::wire {
namespace {

constexpr std::uint64_t kDatagramType = 0;
constexpr std::size_t kLargestHead = 16;

// RFC 9000 section 16: the first two bits tell the length. Takes it off `bytes`, or nothing if it is not complete.
std::optional<std::uint64_t> take_integer(std::string_view& bytes) {
  if (bytes.empty()) return std::nullopt;
  const auto first = static_cast<unsigned char>(bytes[0]);
  const std::size_t size = std::size_t{1} << (first >> 6U);
  if (bytes.size() < size) return std::nullopt;
  std::uint64_t value = first & 0x3fU;
  for (std::size_t i = 1; i < size; ++i) value = value << 8U | static_cast<unsigned char>(bytes[i]);
  bytes.remove_prefix(size);
  return value;
}

void append_integer(std::string& text, std::uint32_t value) {
  if (value < 0x40) {
    text += static_cast<char>(value);
  } else if (value < 0x4000) {
    text += static_cast<char>(0x40U | value >> 8U);
    text += static_cast<char>(value);
  } else {
    text += static_cast<char>(0x80U | value >> 24U);
    for (const unsigned shift : {16U, 8U, 0U}) text += static_cast<char>(value >> shift);
  }
}

}  // namespace

void append_datagram(std::string& capsules, std::string_view payload) {
  append_integer(capsules, kDatagramType);
  append_integer(capsules, static_cast<std::uint32_t>(payload.size() + 1));
  append_integer(capsules, 0);  // the context: a UDP packet
  capsules += payload;
}

Result<void> DatagramReader::feed(std::string_view bytes) {
  if (broken_) return fail(ErrorCode::kInvalid, "the capsules are broken");
  while (!bytes.empty()) {
    if (skip_ > 0) {
      const auto n = std::min<std::uint64_t>(skip_, bytes.size());
      bytes.remove_prefix(n);
      skip_ -= n;
    } else if (wanted_ > 0) {
      const auto n = std::min(wanted_ - held_.size(), bytes.size());
      held_.append(bytes.substr(0, n));
      bytes.remove_prefix(n);
      if (held_.size() == wanted_) {
        take(held_);
        held_.clear();
        wanted_ = 0;
      }
    } else {
      // The head, perhaps begun by earlier bytes.
      const auto before = held_.size();
      held_.append(bytes.substr(0, kLargestHead - before));
      std::string_view head = held_;
      const auto type = take_integer(head);
      const auto length = type ? take_integer(head) : std::nullopt;
      if (!length) return {};  // a head of 16 bytes is always complete, so all of `bytes` is held
      bytes.remove_prefix(held_.size() - head.size() - before);
      held_.clear();
      if (*type != kDatagramType) {
        skip_ = *length;
      } else if (*length > kLargestDatagram + 1) {
        broken_ = true;
        return fail(ErrorCode::kInvalid, "a datagram of " + std::to_string(*length) + " bytes");
      } else {
        wanted_ = *length;  // an empty one has no context either and means nothing
      }
    }
  }
  return {};
}

void DatagramReader::take(std::string_view datagram) {
  const auto context = take_integer(datagram);
  if (context == 0U && datagram.size() <= kLargestDatagram) sink_(datagram);
}

}  // namespace sbx::wire
