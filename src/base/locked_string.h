// LockedString: bytes that must not leave this process: locked into RAM (mlock), left out of core dumps, zero in a
// forked child, wiped before the memory is given back. It cannot be copied, printed, logged or turned into JSON; what
// is in it is had by reveal() only, so that a search for that word finds every place where a secret is looked at.
//
//   LockedString value = SBX_TRY(LockedString::copy_of(piece), "keeping the value");
//   SBX_CHECK(value.append("\n"), "...");
//   send(value.reveal());
//
// One thread at a time. Each non-empty object costs at least one page of RLIMIT_MEMLOCK.
#pragma once

#include <cstddef>
#include <ostream>
#include <span>
#include <string_view>

#include "base/result.h"

namespace sbx {

class LockedString {
 public:
  LockedString() = default;
  // kUnavailable if the memory cannot be locked: a secret is refused rather than kept where it may be swapped out.
  static Result<LockedString> copy_of(std::string_view bytes);

  LockedString(LockedString&& other) noexcept;
  LockedString& operator=(LockedString&& other) noexcept;
  LockedString(const LockedString&) = delete;
  LockedString& operator=(const LockedString&) = delete;
  ~LockedString() { clear(); }

  std::string_view reveal() const { return {data_, size_}; }
  std::size_t size() const { return size_; }
  bool empty() const { return size_ == 0; }

  Result<void> append(std::string_view bytes);
  Result<void> reserve(std::size_t capacity);
  // For reading into: `count` writable bytes after the present ones; commit() makes the first `used` of them part of
  // the string.
  Result<std::span<char>> prepare(std::size_t count);
  void commit(std::size_t used) { size_ += used; }
  // Drops bytes from the end, or from the beginning, wiping them.
  void shrink_to(std::size_t size);
  void remove_prefix(std::size_t count);
  // Wipes and gives the memory back.
  void clear();

  // In constant time for equal sizes.
  friend bool operator==(const LockedString& a, const LockedString& b);

 private:
  char* data_ = nullptr;
  std::size_t size_ = 0;
  std::size_t capacity_ = 0;  // whole pages
};

std::ostream& operator<<(std::ostream&, const LockedString&) = delete;
template <typename Json>
void to_json(Json&, const LockedString&) = delete;

}  // namespace sbx
