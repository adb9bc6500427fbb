#include "gateway/client_hello.h"

#include <algorithm>
#include <cstdint>
#include <set>

namespace sbx::gateway {
namespace {

constexpr std::uint8_t kHandshake = 22;
constexpr std::uint8_t kClientHello = 1;
constexpr std::uint16_t kServerName = 0;           // RFC 6066 section 3
constexpr std::uint16_t kAlpn = 16;                // RFC 7301 section 3.1
constexpr std::uint16_t kEncryptedHello = 0xfe0d;  // RFC 9849
constexpr std::size_t kMaxRecord = 16384;

std::unexpected<Error> malformed(std::string_view what) {
  return fail(ErrorCode::kInvalid, "malformed ClientHello: " + std::string(what));
}
std::unexpected<Error> incomplete() { return fail(ErrorCode::kUnavailable, "the ClientHello is not complete yet"); }

// Takes big-endian numbers and counted pieces off the front. After the first shortage everything is empty and ok() is
// false.
class Reader {
 public:
  explicit Reader(std::string_view bytes) : bytes_(bytes) {}
  std::uint32_t number(std::size_t size) {
    const auto piece = take(size);
    std::uint32_t value = 0;
    for (const char c : piece) value = value << 8U | static_cast<std::uint8_t>(c);
    return value;
  }
  std::string_view take(std::size_t size) {
    if (size > bytes_.size()) {
      ok_ = false;
      bytes_ = {};
      return {};
    }
    const auto piece = bytes_.substr(0, size);
    bytes_.remove_prefix(size);
    return piece;
  }
  std::string_view counted(std::size_t size_of_count) { return take(number(size_of_count)); }
  bool ok() const { return ok_; }
  bool empty() const { return bytes_.empty(); }

 private:
  std::string_view bytes_;
  bool ok_ = true;
};

// The handshake message, put together from its records.
Result<std::string> handshake_message(std::string_view bytes) {
  std::string message;
  for (;;) {
    if (message.size() >= 4) {
      Reader head(message);
      if (head.number(1) != kClientHello) return malformed("another message comes first");
      const std::size_t size = head.number(3) + std::size_t{4};
      if (size > kMaxClientHello) return malformed("it is too long");
      if (message.size() == size) return message;
      if (message.size() > size) return malformed("something follows it in its record");
    }
    if (bytes.size() < 5) return incomplete();
    Reader record(bytes);
    const auto type = record.number(1);
    const auto version = record.number(2);
    const std::size_t size = record.number(2);
    if (type != kHandshake || version >> 8U != 3) return malformed("not a handshake record");
    if (size == 0 || size > kMaxRecord) return malformed("a record's length");
    if (bytes.size() < 5 + size) {
      // Enough may be here to refuse it already.
      return bytes.size() > kMaxClientHello ? Result<std::string>(malformed("it is too long")) : incomplete();
    }
    message += bytes.substr(5, size);
    bytes.remove_prefix(5 + size);
  }
}

Result<std::string> parse_server_name(std::string_view body) {
  Reader reader(body);
  Reader list(reader.counted(2));
  if (!reader.ok() || !reader.empty()) return malformed("server name");
  const auto type = list.number(1);
  const auto name = list.counted(2);
  if (!list.ok() || !list.empty() || type != 0 || name.empty() || name.size() > 255) return malformed("server name");
  std::string lower(name);
  for (char& c : lower) {
    if (c <= ' ' || c >= 0x7f) return malformed("server name");
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return lower;
}

Result<std::vector<std::string>> parse_alpn(std::string_view body) {
  Reader reader(body);
  Reader list(reader.counted(2));
  if (!reader.ok() || !reader.empty() || list.empty()) return malformed("protocol list");
  std::vector<std::string> protocols;
  while (!list.empty()) {
    const auto protocol = list.counted(1);
    if (!list.ok() || protocol.empty()) return malformed("protocol list");
    protocols.emplace_back(protocol);
  }
  return protocols;
}

}  // namespace

bool looks_like_tls(std::string_view bytes) {
  return bytes.size() >= 3 && static_cast<std::uint8_t>(bytes[0]) == kHandshake && bytes[1] == 3 &&
         static_cast<std::uint8_t>(bytes[2]) <= 4;
}

Result<ClientHello> parse_client_hello(std::string_view bytes) {
  const auto message = SBX_TRY(handshake_message(bytes), "reading the ClientHello");
  Reader reader(std::string_view(message).substr(4));
  reader.take(2 + 32);  // legacy_version, random
  reader.counted(1);    // legacy_session_id
  const auto suites = reader.counted(2);
  const auto compression = reader.counted(1);
  if (!reader.ok() || suites.empty() || suites.size() % 2 != 0 || compression.empty()) return malformed("its head");
  ClientHello hello;
  if (reader.empty()) return hello;  // before TLS 1.2: no extensions at all
  Reader extensions(reader.counted(2));
  if (!reader.ok() || !reader.empty()) return malformed("extensions");
  std::set<std::uint32_t> seen;
  while (!extensions.empty()) {
    const auto type = extensions.number(2);
    const auto body = extensions.counted(2);
    if (!extensions.ok()) return malformed("an extension");
    if (!seen.insert(type).second) return malformed("an extension comes twice");
    if (type == kServerName) hello.server_name = SBX_TRY(parse_server_name(body), "reading the ClientHello");
    if (type == kAlpn) hello.alpn = SBX_TRY(parse_alpn(body), "reading the ClientHello");
    if (type == kEncryptedHello) hello.encrypted_hello = true;
  }
  return hello;
}

}  // namespace sbx::gateway
