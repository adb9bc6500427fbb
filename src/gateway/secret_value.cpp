#include "gateway/secret_value.h"

#include <openssl/crypto.h>

#include <cstring>
#include <new>

namespace sbx::gateway {

namespace {
// Of a thousand credentials; a host that allows 64 KiB of locked memory gets by with less.
constexpr std::size_t kHeap = 256U << 10U;
constexpr std::size_t kSmallHeap = 32U << 10U;
constexpr std::size_t kSmallest = 32;
}  // namespace

Result<bool> make_secure_heap() {
  // 1: made and locked; 2: made, but some protection failed.
  int made = CRYPTO_secure_malloc_init(kHeap, kSmallest);
  if (made == 2 && CRYPTO_secure_malloc_done() == 1) {
    made = CRYPTO_secure_malloc_init(kSmallHeap, kSmallest);
  }
  if (made == 0) return fail(ErrorCode::kInternal, "memory for secrets could not be set up");
  return made == 1;
}

SecretValue::SecretValue(std::string_view value) : size_(value.size()) {
  if (size_ == 0) return;
  data_ = static_cast<char*>(OPENSSL_secure_malloc(size_));
  if (data_ == nullptr) throw std::bad_alloc();
  std::memcpy(data_, value.data(), size_);
}

SecretValue::~SecretValue() {
  if (data_ != nullptr) OPENSSL_secure_clear_free(data_, size_);
}

void wipe(std::string& text) {
  OPENSSL_cleanse(text.data(), text.size());
  text.clear();
}

}  // namespace sbx::gateway
