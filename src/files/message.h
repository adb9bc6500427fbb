// Bounds and parsing of one FUSE message (linux/fuse.h) whose sender is not trusted: every field is copied out only
// after its length has been checked, and a name is only ever one harmless path component.
// Thread safety: none.
#pragma once

#include <linux/fuse.h>

#include <cstdint>
#include <cstring>
#include <expected>
#include <string>
#include <string_view>

namespace sbx::files {

// The largest read and write that INIT agrees to, and with it the largest message in either direction.
inline constexpr std::uint32_t kMaxWrite = 1U << 20U;
inline constexpr std::size_t kMaxMessage = kMaxWrite + 4096;
inline constexpr std::size_t kMaxName = 255;

// The outcome of an operation in the protocol's own terms: a value, or a positive errno for the guest.
template <typename T>
using Outcome = std::expected<T, int>;

// Takes a message's body apart from the front.
class Body {
 public:
  explicit Body(std::string_view bytes) : rest_(bytes) {}

  // False (and nothing taken) if the body is too short.
  template <typename T>
  bool take(T& value) {
    if (rest_.size() < sizeof(T)) return false;
    std::memcpy(&value, rest_.data(), sizeof(T));
    rest_.remove_prefix(sizeof(T));
    return true;
  }
  // A NUL-terminated string that lies within the message.
  bool take_string(std::string_view& value) {
    const auto end = rest_.find('\0');
    if (end == std::string_view::npos) return false;
    value = rest_.substr(0, end);
    rest_.remove_prefix(end + 1);
    return true;
  }
  std::string_view rest() const { return rest_; }

 private:
  std::string_view rest_;
};

// 0, or the errno for a name that must not reach the host's kernel: EINVAL for "", ".", ".." and any '/',
// ENAMETOOLONG beyond 255 bytes. Any other bytes are a name, in UTF-8 or not.
inline int check_name(std::string_view name) {
  if (name.empty() || name == "." || name == ".." || name.find('/') != std::string_view::npos) return EINVAL;
  return name.size() > kMaxName ? ENAMETOOLONG : 0;
}

struct Request {
  fuse_in_header header;
  std::string_view body;
};

// The reply under construction, in a buffer that is used again for the next one.
class Reply {
 public:
  void clear() { bytes_.assign(sizeof(fuse_out_header), '\0'); }
  template <typename T>
  void add(const T& value) {
    bytes_.append(reinterpret_cast<const char*>(&value), sizeof(T));
  }
  void add_bytes(std::string_view bytes) { bytes_.append(bytes); }
  void pad_to_8() { bytes_.resize((bytes_.size() + 7) & ~std::size_t{7}); }
  // `size` bytes to fill in place; shrink() afterwards to what was filled.
  char* extend(std::size_t size) {
    bytes_.resize(bytes_.size() + size);
    return bytes_.data() + bytes_.size() - size;
  }
  void shrink(std::size_t payload) { bytes_.resize(sizeof(fuse_out_header) + payload); }
  std::size_t payload() const { return bytes_.size() - sizeof(fuse_out_header); }
  // The finished message, in a buffer of its own.
  std::string take(std::uint64_t unique, int error_number) && {
    finish(unique, error_number);
    return std::move(bytes_);
  }
  // The finished message; valid until the next clear().
  std::string_view finish(std::uint64_t unique, int error_number) {
    if (error_number != 0) shrink(0);
    fuse_out_header header{};
    header.len = static_cast<std::uint32_t>(bytes_.size());
    header.error = -error_number;
    header.unique = unique;
    std::memcpy(bytes_.data(), &header, sizeof(header));
    return bytes_;
  }

 private:
  std::string bytes_;
};

}  // namespace sbx::files
