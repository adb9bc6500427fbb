#include "vm/overlay.h"

#include <endian.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>

#include "base/file.h"

namespace sbx::vm {
namespace {

// docs/interop/qcow2.rst in QEMU. All numbers big-endian.
constexpr std::uint32_t kMagic = 0x514649fbU;  // "QFI\xfb"
constexpr std::uint64_t kCluster = 65536;
constexpr std::uint32_t kHeaderLength = 104;
constexpr std::uint32_t kBackingFormatExtension = 0xe2792acaU;
// One cluster of L1 entries, each for 512 MiB: growing an image up to 4 TiB changes nothing but the size.
constexpr std::uint32_t kL1Entries = kCluster / 8;
constexpr std::uint64_t kMaximumSize = kL1Entries * (kCluster / 8) * kCluster;
constexpr std::uint64_t kRefcountTable = 1 * kCluster;
constexpr std::uint64_t kRefcountBlock = 2 * kCluster;
constexpr std::uint64_t kL1Table = 3 * kCluster;
constexpr std::uint64_t kClusters = 4;

class BigEndianWriter {
 public:
  void u16(std::uint16_t v) { put(htobe16(v)); }
  void u32(std::uint32_t v) { put(htobe32(v)); }
  void u64(std::uint64_t v) { put(htobe64(v)); }
  void text(std::string_view v) { bytes_.append(v); }
  void pad_to(std::size_t multiple) {
    while (bytes_.size() % multiple != 0) bytes_.push_back('\0');
  }
  std::string take() { return std::move(bytes_); }

 private:
  template <typename T>
  void put(T value) {
    bytes_.append(reinterpret_cast<const char*>(&value), sizeof value);
  }
  std::string bytes_;
};

std::string header(const OverlayOptions& options) {
  const std::string format = options.backing_format == DiskFormat::kRaw ? "raw" : "qcow2";
  const bool backed = !options.backing_file.empty();
  // Extensions: format (8 + text padded to 8) and end (8); then the name.
  const std::uint64_t name_offset = kHeaderLength + (backed ? 8 + (format.size() + 7) / 8 * 8 : 0) + 8;
  BigEndianWriter w;
  w.u32(kMagic);
  w.u32(3);
  w.u64(backed ? name_offset : 0);
  w.u32(backed ? static_cast<std::uint32_t>(options.backing_file.size()) : 0);
  w.u32(16);  // cluster_bits
  w.u64(options.virtual_size);
  w.u32(0);  // not encrypted
  w.u32(kL1Entries);
  w.u64(kL1Table);
  w.u64(kRefcountTable);
  w.u32(1);  // clusters of the refcount table
  w.u32(0);  // snapshots
  w.u64(0);
  w.u64(0);  // incompatible features
  w.u64(0);  // compatible
  w.u64(0);  // autoclear
  w.u32(4);  // refcounts of 16 bits
  w.u32(kHeaderLength);
  if (backed) {
    w.u32(kBackingFormatExtension);
    w.u32(static_cast<std::uint32_t>(format.size()));
    w.text(format);
    w.pad_to(8);
  }
  w.u64(0);  // end of extensions
  if (backed) w.text(options.backing_file);
  return w.take();
}

Result<void> write_at(int fd, std::string_view data, std::uint64_t offset) {
  while (!data.empty()) {
    const ssize_t n = ::pwrite(fd, data.data(), data.size(), static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return fail_errno("writing a disk image", errno);
    data.remove_prefix(static_cast<std::size_t>(n));
    offset += static_cast<std::uint64_t>(n);
  }
  return {};
}

template <typename T>
Result<T> read_number(int fd, std::uint64_t offset) {
  T value{};
  if (::pread(fd, &value, sizeof value, static_cast<off_t>(offset)) != sizeof value) {
    return fail(ErrorCode::kInvalid, "the disk image is too short for a qcow2 header");
  }
  if constexpr (sizeof(T) == 4)
    return be32toh(value);
  else
    return be64toh(value);
}

Result<void> require_qcow2(int fd) {
  if (SBX_TRY(read_number<std::uint32_t>(fd, 0), "reading the header") != kMagic) {
    return fail(ErrorCode::kInvalid, "the disk image is not qcow2");
  }
  return {};
}

}  // namespace

Result<void> create_overlay(const std::filesystem::path& path, const OverlayOptions& options) {
  if (options.virtual_size == 0 || options.virtual_size % 512 != 0 || options.virtual_size > kMaximumSize) {
    return fail(ErrorCode::kInvalid, "a disk's size must be a multiple of 512 bytes, up to 4 TiB");
  }
  if (options.backing_file.size() > 1023) return fail(ErrorCode::kInvalid, "the backing file's name is too long");
  const auto fd = SBX_TRY(open_file(path, O_RDWR | O_CREAT | O_EXCL), "creating an overlay");
  if (::ftruncate(fd.get(), static_cast<off_t>(kClusters * kCluster)) != 0) {
    return fail_errno("sizing " + path.string(), errno);
  }
  BigEndianWriter table;
  table.u64(kRefcountBlock);
  BigEndianWriter block;
  for (std::uint64_t i = 0; i < kClusters; ++i) block.u16(1);
  SBX_CHECK(write_at(fd.get(), table.take(), kRefcountTable), path.string());
  SBX_CHECK(write_at(fd.get(), block.take(), kRefcountBlock), path.string());
  SBX_CHECK(write_at(fd.get(), header(options), 0), path.string());
  return {};
}

Result<std::uint64_t> virtual_disk_size(const std::filesystem::path& path, DiskFormat format) {
  const auto fd = SBX_TRY(open_file(path, O_RDONLY), "reading a disk's size");
  if (format == DiskFormat::kRaw) {
    struct stat status {};
    if (::fstat(fd.get(), &status) != 0) return fail_errno("stat " + path.string(), errno);
    return static_cast<std::uint64_t>(status.st_size);
  }
  SBX_CHECK(require_qcow2(fd.get()), path.string());
  return read_number<std::uint64_t>(fd.get(), 24);
}

Result<void> grow_overlay(const std::filesystem::path& path, std::uint64_t virtual_size) {
  const auto fd = SBX_TRY(open_file(path, O_RDWR), "growing a disk");
  SBX_CHECK(require_qcow2(fd.get()), path.string());
  const auto now = SBX_TRY(read_number<std::uint64_t>(fd.get(), 24), path.string());
  const auto l1_entries = SBX_TRY(read_number<std::uint32_t>(fd.get(), 36), path.string());
  const std::uint64_t limit = std::min<std::uint64_t>(l1_entries, kL1Entries) * (kCluster / 8) * kCluster;
  if (virtual_size < now) return fail(ErrorCode::kInvalid, "a disk can grow, but not shrink");
  if (virtual_size % 512 != 0 || virtual_size > limit) {
    return fail(ErrorCode::kInvalid, "a disk's size must be a multiple of 512 bytes, up to " + std::to_string(limit));
  }
  BigEndianWriter size;
  size.u64(virtual_size);
  SBX_CHECK(write_at(fd.get(), size.take(), 24), path.string());
  if (::fdatasync(fd.get()) != 0) return fail_errno("syncing " + path.string(), errno);
  return {};
}

}  // namespace sbx::vm
