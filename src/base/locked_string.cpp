#include "base/locked_string.h"

#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <limits>
#include <utility>

namespace sbx {
namespace {

std::size_t whole_pages(std::size_t bytes) {
  const auto page = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
  return (bytes + page - 1) / page * page;
}

// mlock(2) by its number: sanitizers put a function of that name in its place that does nothing.
bool try_lock(void* memory, std::size_t bytes) { return ::syscall(SYS_mlock, memory, bytes) == 0; }

bool lock(void* memory, std::size_t bytes) {
  if (try_lock(memory, bytes)) return true;
  rlimit limit{};
  if (::getrlimit(RLIMIT_MEMLOCK, &limit) != 0 || limit.rlim_cur == limit.rlim_max) return false;
  limit.rlim_cur = limit.rlim_max;
  return ::setrlimit(RLIMIT_MEMLOCK, &limit) == 0 && try_lock(memory, bytes);
}

Result<char*> map_locked(std::size_t bytes) {
  void* memory = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return fail_errno("getting memory for a secret", errno);
  // MADV_WIPEONFORK: between fork and exec a child holds a copy of everything else.
  if (!lock(memory, bytes) || ::madvise(memory, bytes, MADV_DONTDUMP) != 0 ||
      ::madvise(memory, bytes, MADV_WIPEONFORK) != 0) {
    ::munmap(memory, bytes);
    return fail(ErrorCode::kUnavailable,
                "memory for a secret cannot be locked; raise the limit (ulimit -l, LimitMEMLOCK=) and try again");
  }
  return static_cast<char*>(memory);
}

}  // namespace

Result<LockedString> LockedString::copy_of(std::string_view bytes) {
  LockedString copy;
  SBX_CHECK(copy.append(bytes), "keeping a secret");
  return copy;
}

LockedString::LockedString(LockedString&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)),
      capacity_(std::exchange(other.capacity_, 0)) {}

LockedString& LockedString::operator=(LockedString&& other) noexcept {
  if (this == &other) return *this;
  clear();
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  std::swap(capacity_, other.capacity_);
  return *this;
}

Result<void> LockedString::reserve(std::size_t capacity) {
  if (capacity <= capacity_) return {};
  if (capacity > std::numeric_limits<std::size_t>::max() / 4) return fail(ErrorCode::kInvalid, "a secret is too large");
  LockedString larger;
  larger.capacity_ = whole_pages(std::max(capacity, 2 * capacity_));
  auto memory = map_locked(larger.capacity_);
  if (!memory) {
    larger.capacity_ = 0;
    return std::unexpected(memory.error());
  }
  larger.data_ = *memory;
  if (size_ > 0) std::memcpy(larger.data_, data_, size_);
  larger.size_ = size_;
  *this = std::move(larger);
  return {};
}

Result<void> LockedString::append(std::string_view bytes) {
  if (bytes.empty()) return {};
  const auto room = SBX_TRY(prepare(bytes.size()), "keeping a secret");
  std::memcpy(room.data(), bytes.data(), bytes.size());
  commit(bytes.size());
  return {};
}

Result<std::span<char>> LockedString::prepare(std::size_t count) {
  SBX_CHECK(reserve(size_ + count), "keeping a secret");
  return std::span<char>(data_ + size_, count);
}

void LockedString::shrink_to(std::size_t size) {
  if (size >= size_) return;
  ::explicit_bzero(data_ + size, size_ - size);
  size_ = size;
}

void LockedString::remove_prefix(std::size_t count) {
  count = std::min(count, size_);
  if (count == 0) return;
  std::memmove(data_, data_ + count, size_ - count);
  shrink_to(size_ - count);
}

void LockedString::clear() {
  if (data_ != nullptr) {
    ::explicit_bzero(data_, capacity_);
    ::munmap(data_, capacity_);
  }
  data_ = nullptr;
  size_ = 0;
  capacity_ = 0;
}

bool operator==(const LockedString& a, const LockedString& b) {
  if (a.size_ != b.size_) return false;
  unsigned char difference = 0;
  for (std::size_t i = 0; i < a.size_; ++i) difference |= static_cast<unsigned char>(a.data_[i] ^ b.data_[i]);
  return difference == 0;
}

}  // namespace sbx
