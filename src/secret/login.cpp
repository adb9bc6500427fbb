#include "secret/login.h"

#include <charconv>

namespace sbx::secret {
namespace {

constexpr std::size_t kLength = 4;
constexpr std::size_t kLongestUpdate = 64U << 10U;
constexpr std::size_t kLongestToken = 16U << 10U;
constexpr std::size_t kLongestService = 64;

std::size_t length_at(std::string_view bytes) {
  std::size_t length = 0;
  for (std::size_t i = 0; i < kLength; ++i) length = length << 8U | static_cast<unsigned char>(bytes[i]);
  return length;
}

Result<void> append_field(LockedString& into, std::string_view field) {
  char length[kLength];
  for (std::size_t i = 0; i < kLength; ++i) length[i] = static_cast<char>(field.size() >> (8 * (kLength - 1 - i)));
  SBX_CHECK(into.append({length, kLength}), "writing tokens");
  return into.append(field);
}

// Takes the first field off `bytes`.
Result<std::string_view> take_field(std::string_view& bytes) {
  if (bytes.size() < kLength || length_at(bytes) > bytes.size() - kLength)
    return fail(ErrorCode::kInvalid, "a field is longer than what holds it");
  const auto field = bytes.substr(kLength, length_at(bytes));
  bytes.remove_prefix(kLength + field.size());
  return field;
}

Result<LockedString> take_token(std::string_view& bytes) {
  const auto field = SBX_TRY(take_field(bytes), "reading a token");
  if (field.size() > kLongestToken) return fail(ErrorCode::kInvalid, "a token is longer than 16 KiB");
  // It goes into a header, as it is.
  for (const char c : field) {
    if (c <= ' ' || c >= 0x7f) return fail(ErrorCode::kInvalid, "a token is not printable ASCII");
  }
  return LockedString::copy_of(field);
}

Result<std::uint64_t> take_number(std::string_view& bytes) {
  const auto digits = SBX_TRY(take_field(bytes), "reading a number");
  std::uint64_t number = 0;
  const auto read = std::from_chars(digits.data(), digits.data() + digits.size(), number);
  if (read.ec != std::errc() || read.ptr != digits.data() + digits.size())
    return fail(ErrorCode::kInvalid, "a number is none");
  return number;
}

Result<LoginUpdate> read_update(std::string_view bytes) {
  LoginUpdate update;
  update.number = SBX_TRY(take_number(bytes), "reading its number");
  const auto service = SBX_TRY(take_field(bytes), "reading its service");
  if (service.size() > kLongestService) return fail(ErrorCode::kInvalid, "its service has a name that is too long");
  update.service = service;
  update.generation = SBX_TRY(take_number(bytes), "reading its generation");
  update.tokens = SBX_TRY(unpack_tokens(bytes), "reading its tokens");
  return update;
}

}  // namespace

Result<LockedString> pack_tokens(const Tokens& tokens) {
  LockedString bytes;
  SBX_CHECK(append_field(bytes, tokens.access.reveal()), "storing tokens");
  SBX_CHECK(append_field(bytes, tokens.refresh.reveal()), "storing tokens");
  return bytes;
}

Result<Tokens> unpack_tokens(std::string_view bytes) {
  Tokens tokens;
  tokens.access = SBX_TRY(take_token(bytes), "reading the access token");
  tokens.refresh = SBX_TRY(take_token(bytes), "reading the refresh token");
  if (!bytes.empty()) return fail(ErrorCode::kInvalid, "something follows the tokens");
  if (tokens.access.empty() && tokens.refresh.empty()) return fail(ErrorCode::kInvalid, "there are no tokens");
  return tokens;
}

Result<std::optional<LoginUpdate>> LoginFrames::next() {
  const auto bytes = held_.reveal();
  if (bytes.size() < kLength) return std::nullopt;
  const std::size_t length = length_at(bytes);
  if (length > kLongestUpdate) return fail(ErrorCode::kInvalid, "an update about a login is too long");
  if (bytes.size() - kLength < length) return std::nullopt;
  auto update = SBX_TRY(read_update(bytes.substr(kLength, length)), "reading an update about a login");
  held_.remove_prefix(kLength + length);
  return update;
}

}  // namespace sbx::secret
