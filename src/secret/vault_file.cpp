#include "secret/vault_file.h"

#include <openssl/evp.h>
#include <openssl/rand.h>

#include <algorithm>
#include <memory>

namespace sbx::secret {
namespace {

constexpr std::string_view kMagic = "SBXSEC1\n";
constexpr std::size_t kNameBytes = 16;
constexpr std::size_t kNonceBytes = 12;
constexpr std::size_t kTagBytes = 16;
constexpr std::size_t kHeader = kMagic.size() + kNameBytes + kNonceBytes;

using Context = std::unique_ptr<EVP_CIPHER_CTX, decltype(&EVP_CIPHER_CTX_free)>;

const unsigned char* bytes_of(std::string_view text) { return reinterpret_cast<const unsigned char*>(text.data()); }

std::unexpected<Error> crypto_failed() { return fail(ErrorCode::kInternal, "OpenSSL failed on the secrets' file"); }

Result<std::string> random_bytes(std::size_t count) {
  std::string bytes(count, '\0');
  if (RAND_bytes(reinterpret_cast<unsigned char*>(bytes.data()), static_cast<int>(count)) != 1) return crypto_failed();
  return bytes;
}

Result<void> append_length(LockedString& into, std::size_t length) {
  const char bytes[4] = {static_cast<char>(length >> 24U), static_cast<char>(length >> 16U),
                         static_cast<char>(length >> 8U), static_cast<char>(length)};
  return into.append({bytes, sizeof bytes});
}

// A length and that many bytes, taken off `rest`.
Result<std::string_view> take(std::string_view& rest) {
  if (rest.size() < 4) return fail(ErrorCode::kInvalid, "the secrets' file is cut off");
  std::size_t length = 0;
  for (std::size_t i = 0; i < 4; ++i) length = length << 8U | static_cast<unsigned char>(rest[i]);
  rest.remove_prefix(4);
  if (length > rest.size()) return fail(ErrorCode::kInvalid, "the secrets' file is cut off");
  const auto taken = rest.substr(0, length);
  rest.remove_prefix(length);
  return taken;
}

bool is_name(std::string_view name) {
  return name.size() == kNameBytes &&
         std::ranges::all_of(name, [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); });
}

}  // namespace

Result<LockedString> make_key() {
  LockedString key;
  const auto room = SBX_TRY(key.prepare(kKeyBytes), "making a key");
  if (RAND_bytes(reinterpret_cast<unsigned char*>(room.data()), static_cast<int>(kKeyBytes)) != 1)
    return crypto_failed();
  key.commit(kKeyBytes);
  return key;
}

std::string make_key_name() {
  std::string name;
  for (const char c : random_bytes(kNameBytes / 2).value_or(std::string(kNameBytes / 2, '\0'))) {
    name += "0123456789abcdef"[(static_cast<unsigned char>(c) >> 4U) & 15U];
    name += "0123456789abcdef"[static_cast<unsigned char>(c) & 15U];
  }
  return name;
}

Result<std::string> key_name_of(std::string_view file) {
  const auto name = file.substr(std::min(kMagic.size(), file.size()), kNameBytes);
  if (!file.starts_with(kMagic) || !is_name(name) || file.size() < kHeader + kTagBytes)
    return fail(ErrorCode::kInvalid, "it is cut off, or was not written by sbx");
  return std::string(name);
}

Result<std::string> seal(const std::vector<Entry>& entries, const LockedString& key, const std::string& key_name) {
  const LockedString plain = SBX_TRY(pack(entries), "packing the secrets");
  std::string file = std::string(kMagic) + key_name + SBX_TRY(random_bytes(kNonceBytes), "encrypting the secrets");
  if (plain.size() + kHeader + kTagBytes > kLargestFile)
    return fail(ErrorCode::kInvalid, "the secrets are larger than 16 MiB in all");
  const std::string header = file;
  file.resize(kHeader + plain.size() + kTagBytes);
  auto* out = reinterpret_cast<unsigned char*>(file.data());
  const Context context(EVP_CIPHER_CTX_new(), EVP_CIPHER_CTX_free);
  int length = 0;
  const bool done =
      context && key.size() == kKeyBytes && key_name.size() == kNameBytes &&
      EVP_EncryptInit_ex(context.get(), EVP_aes_256_gcm(), nullptr, bytes_of(key.reveal()),
                         bytes_of(header) + kHeader - kNonceBytes) == 1 &&
      EVP_EncryptUpdate(context.get(), nullptr, &length, bytes_of(header), static_cast<int>(kHeader)) == 1 &&
      EVP_EncryptUpdate(context.get(), out + kHeader, &length, bytes_of(plain.reveal()),
                        static_cast<int>(plain.size())) == 1 &&
      EVP_EncryptFinal_ex(context.get(), out + kHeader + length, &length) == 1 &&
      EVP_CIPHER_CTX_ctrl(context.get(), EVP_CTRL_GCM_GET_TAG, kTagBytes, out + kHeader + plain.size()) == 1;
  if (!done) return crypto_failed();
  return file;
}

Result<std::vector<Entry>> open(std::string_view file, const LockedString& key) {
  SBX_TRY(key_name_of(file), "reading the secrets' file");
  const std::size_t size = file.size() - kHeader - kTagBytes;
  LockedString plain;
  const auto room = SBX_TRY(plain.prepare(size + 1), "decrypting the secrets");
  auto* out = reinterpret_cast<unsigned char*>(room.data());
  std::string tag(file.substr(file.size() - kTagBytes));
  const Context context(EVP_CIPHER_CTX_new(), EVP_CIPHER_CTX_free);
  int length = 0;
  const bool done =
      context && key.size() == kKeyBytes &&
      EVP_DecryptInit_ex(context.get(), EVP_aes_256_gcm(), nullptr, bytes_of(key.reveal()),
                         bytes_of(file) + kHeader - kNonceBytes) == 1 &&
      EVP_DecryptUpdate(context.get(), nullptr, &length, bytes_of(file), static_cast<int>(kHeader)) == 1 &&
      EVP_DecryptUpdate(context.get(), out, &length, bytes_of(file) + kHeader, static_cast<int>(size)) == 1 &&
      EVP_CIPHER_CTX_ctrl(context.get(), EVP_CTRL_GCM_SET_TAG, kTagBytes, tag.data()) == 1 &&
      EVP_DecryptFinal_ex(context.get(), out + length, &length) == 1;
  if (!done) return fail(ErrorCode::kInvalid, "it was damaged or changed, or its key belongs to another file");
  plain.commit(size);
  return unpack(plain.reveal());
}

Result<LockedString> pack(const std::vector<Entry>& entries) {
  LockedString bytes;
  for (const auto& entry : entries) {
    SBX_CHECK(append_length(bytes, entry.key.size()), "packing a secret");
    SBX_CHECK(bytes.append(entry.key), "packing a secret");
    SBX_CHECK(append_length(bytes, entry.bytes.size()), "packing a secret");
    SBX_CHECK(bytes.append(entry.bytes.reveal()), "packing a secret");
  }
  return bytes;
}

Result<std::vector<Entry>> unpack(std::string_view bytes) {
  std::vector<Entry> entries;
  while (!bytes.empty()) {
    Entry entry;
    entry.key = SBX_TRY(take(bytes), "reading a key");
    entry.bytes = SBX_TRY(LockedString::copy_of(SBX_TRY(take(bytes), "reading a secret")), "reading a secret");
    entries.push_back(std::move(entry));
  }
  return entries;
}

}  // namespace sbx::secret
