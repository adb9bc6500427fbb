// The secrets' file as somebody may have left it: the header and the encrypted file as a whole, the entries that it
// decrypts to (an attacker who has the key, or a version of sbx that wrote nonsense), and one record.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "secret/record.h"
#include "secret/vault_file.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const sbx::LockedString key = sbx::secret::make_key().value();
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  if (sbx::secret::open(bytes, key)) std::abort();  // a forgery
  if (const auto entries = sbx::secret::unpack(bytes)) {
    // What was understood is written back as it was.
    const auto packed = sbx::secret::pack(*entries);
    if (!packed || packed->reveal() != bytes) std::abort();
    for (const auto& entry : *entries) (void)sbx::secret::decode(entry.bytes.reveal());
  }
  if (auto record = sbx::secret::decode(bytes)) {
    const auto again = sbx::secret::decode(sbx::secret::encode(*record).value().reveal());
    if (!again || again->key() != record->key()) std::abort();
  }
  return 0;
}
