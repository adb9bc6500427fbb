#include "base/random.h"

#include <sys/random.h>

#include <cstdlib>

namespace sbx {

std::string random_bytes(std::size_t count) {
  std::string bytes(count, '\0');
  for (std::size_t at = 0; at < count;) {
    const ssize_t got = ::getrandom(bytes.data() + at, count - at, 0);
    if (got < 0) std::abort();  // only a broken kernel gets here; an id that is not random would be worse
    at += static_cast<std::size_t>(got);
  }
  return bytes;
}

std::string random_hex(std::size_t digits) {
  std::string text;
  for (const char c : random_bytes((digits + 1) / 2)) {
    text += "0123456789abcdef"[(static_cast<unsigned char>(c) >> 4U) & 15U];
    text += "0123456789abcdef"[static_cast<unsigned char>(c) & 15U];
  }
  text.resize(digits);
  return text;
}

std::string random_uuid() {
  std::string hex = random_hex(32);
  hex[12] = '4';
  hex[16] = "89ab"[static_cast<unsigned char>(hex[16]) & 3U];
  return hex.substr(0, 8) + "-" + hex.substr(8, 4) + "-" + hex.substr(12, 4) + "-" + hex.substr(16, 4) + "-" +
         hex.substr(20);
}

std::string base64(const std::string& bytes) {
  constexpr const char* kAlphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string text;
  for (std::size_t at = 0; at < bytes.size(); at += 3) {
    unsigned word = 0;
    for (std::size_t i = 0; i < 3; ++i)
      word = word << 8U | (at + i < bytes.size() ? static_cast<unsigned char>(bytes[at + i]) : 0U);
    for (std::size_t i = 0; i < 4; ++i) text += at + i > bytes.size() ? '=' : kAlphabet[(word >> (18U - 6U * i)) & 63U];
  }
  return text;
}

}  // namespace sbx
