// The secrets' file as somebody may have left it: the header and the encrypted file as a whole, the entries that it
// decrypts to (an attacker who has the key, or a version of sbx that wrote nonsense), and one record. And what a
// gateway tells of logins.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "secret/login.h"
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
  sbx::secret::LoginFrames frames;
  const auto room = frames.prepare(size);
  if (!room) std::abort();
  std::copy(data, data + size, room->data());
  frames.commit(size);
  for (auto update = frames.next(); update && *update; update = frames.next()) {
    const auto packed = sbx::secret::pack_tokens((*update)->tokens);
    if (!packed || !sbx::secret::unpack_tokens(packed->reveal())) std::abort();
  }
  if (auto record = sbx::secret::decode(bytes)) {
    const auto again = sbx::secret::decode(sbx::secret::encode(*record).value().reveal());
    if (!again || again->key() != record->key()) std::abort();
  }
  return 0;
}
