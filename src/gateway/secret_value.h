// SecretValue: bytes in OpenSSL's secure heap: locked into memory, left out of core dumps, wiped when they go.
// Value type, moved and not copied. One executor.
#pragma once

#include <string>
#include <string_view>
#include <utility>

#include "base/result.h"

namespace sbx::gateway {

// Makes the secure heap; once, at the start. False: it could not be locked (RLIMIT_MEMLOCK), which /status tells.
Result<bool> make_secure_heap();

class SecretValue {
 public:
  SecretValue() = default;
  // Copies; the caller wipes its own (wipe()).
  explicit SecretValue(std::string_view value);
  SecretValue(SecretValue&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
  SecretValue& operator=(SecretValue&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
  }
  ~SecretValue();
  std::string_view view() const { return {data_, size_}; }
  bool empty() const { return size_ == 0; }

 private:
  char* data_ = nullptr;
  std::size_t size_ = 0;
};

// Overwrites and empties.
void wipe(std::string& text);

}  // namespace sbx::gateway
