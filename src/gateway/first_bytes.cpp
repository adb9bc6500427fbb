#include "gateway/first_bytes.h"

#include <algorithm>
#include <array>

#include "gateway/client_hello.h"

namespace sbx::gateway {

namespace {
// RFC 9113 section 3.4; it looks like a request of HTTP/1.1 on purpose.
constexpr std::string_view kPreface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
constexpr std::size_t kLongestMethod = 24;
}  // namespace

FirstBytes classify(std::string_view bytes) {
  if (bytes.empty()) return FirstBytes::kTooFew;
  if (bytes[0] == 0x16) {
    if (looks_like_tls(bytes)) return FirstBytes::kTls;
    return bytes.size() < 3 ? FirstBytes::kTooFew : FirstBytes::kOther;
  }
  if (bytes.starts_with(kPreface)) return FirstBytes::kHttp2;
  if (kPreface.starts_with(bytes)) return FirstBytes::kTooFew;
  if (bytes.starts_with("\r\n")) bytes.remove_prefix(2);
  const auto end =
      std::ranges::find_if_not(bytes, [](char c) { return (c >= 'A' && c <= 'Z') || c == '-' || c == '_'; });
  const auto method = static_cast<std::size_t>(end - bytes.begin());
  if (method > kLongestMethod) return FirstBytes::kOther;
  if (end == bytes.end()) return FirstBytes::kTooFew;
  if (*end != ' ' || method < 3) return FirstBytes::kOther;
  // "HELO name" of SMTP and the like: a request's target starts with one of these.
  if (method + 1 >= bytes.size()) return FirstBytes::kTooFew;
  const char target = bytes[method + 1];
  const bool request = target == '/' || target == '*' || bytes.substr(0, method) == "CONNECT" ||
                       bytes.substr(method + 1, 4) == "http" ||
                       std::string_view("http").starts_with(bytes.substr(method + 1));
  return request ? FirstBytes::kHttp1 : FirstBytes::kOther;
}

bool never_http(unsigned short port) {
  static constexpr std::array<unsigned short, 22> kPorts{21,  22,  23,  25,  53,  110, 111, 119,  135,  139,  143,
                                                         389, 445, 465, 587, 636, 993, 995, 3306, 5432, 6379, 27017};
  return std::ranges::find(kPorts, port) != kPorts.end();
}

}  // namespace sbx::gateway
