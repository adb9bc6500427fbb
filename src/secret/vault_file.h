// The format of the encrypted file, without the file. Pure.
//
//   "SBXSEC1\n"  16 bytes naming the key (hex digits)  12 bytes of nonce  ciphertext  16 bytes of GCM tag
//
// AES-256-GCM (NIST SP 800-38D), a fresh random nonce each time; what stands before the ciphertext is authenticated
// too. The plaintext is a series of entries: 4 bytes of length, the key, 4 bytes of length, the bytes (big endian).
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "secret/vault.h"

namespace sbx::secret {

inline constexpr std::size_t kKeyBytes = 32;
inline constexpr std::size_t kLargestFile = 16U << 20U;

// A new random key, and a name for it.
Result<LockedString> make_key();
std::string make_key_name();

// The name of the key that a file was encrypted with; kInvalid if the file was never ours.
Result<std::string> key_name_of(std::string_view file);
Result<std::string> seal(const std::vector<Entry>& entries, const LockedString& key, const std::string& key_name);
// kInvalid if a single bit was changed, or anything cut off or added.
Result<std::vector<Entry>> open(std::string_view file, const LockedString& key);

Result<LockedString> pack(const std::vector<Entry>& entries);
Result<std::vector<Entry>> unpack(std::string_view bytes);

}  // namespace sbx::secret
