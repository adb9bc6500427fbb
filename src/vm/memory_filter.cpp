#include "vm/memory_filter.h"

#include <array>
#include <cstring>
#include <string>
#include <vector>

namespace sbx::vm {
namespace {

// migration/ram.c and migration/savevm.c in QEMU.
constexpr std::size_t kPage = 4096;
constexpr std::uint64_t kFlagZero = 0x02;
constexpr std::uint64_t kFlagMemorySize = 0x04;
constexpr std::uint64_t kFlagPage = 0x08;
constexpr std::uint64_t kFlagEndOfSection = 0x10;
constexpr std::uint64_t kFlagContinue = 0x20;
constexpr std::uint64_t kFlagMultifdFlush = 0x200;
constexpr char kSectionStart = 1;
constexpr char kSectionPart = 2;
constexpr char kSectionEnd = 3;
constexpr char kSectionFooter = 0x7e;
// The RAM object's name (MachineSpec): the only block whose content the template has.
constexpr std::string_view kRamBlock = "ram";
constexpr std::size_t kLongestPreamble = 4096;
constexpr std::size_t kMostBlocks = 256;

const std::array<char, kPage> kZeroPage{};

std::uint64_t big_endian(const char* bytes, std::size_t size) {
  std::uint64_t value = 0;
  for (std::size_t i = 0; i < size; ++i) value = value << 8U | static_cast<unsigned char>(bytes[i]);
  return value;
}

// Reads exactly what is asked for, never more than one buffer's worth.
class Reader {
 public:
  Reader(const ByteSource& source, MemoryFilterStatistics& statistics) : source_(source), statistics_(statistics) {}

  // The next `size` bytes (at most kCapacity), valid until the next call; kInvalid if the stream ends before.
  Result<std::string_view> take(std::size_t size) {
    while (end_ - begin_ < size) {
      if (!SBX_TRY(fill(), "reading the migration stream")) {
        return fail(ErrorCode::kInvalid, "the migration stream ends too early");
      }
    }
    const std::string_view out(buffer_.data() + begin_, size);
    begin_ += size;
    statistics_.bytes_in += size;
    return out;
  }
  // Whatever is there, at least one byte; empty at the end.
  Result<std::string_view> take_some() {
    if (begin_ == end_ && !SBX_TRY(fill(), "reading the migration stream")) return std::string_view();
    return take(end_ - begin_);
  }
  // Up to `size` bytes without consuming them.
  Result<std::string_view> peek(std::size_t size) {
    while (end_ - begin_ < size) {
      if (!SBX_TRY(fill(), "reading the migration stream")) break;
    }
    return std::string_view(buffer_.data() + begin_, std::min(size, end_ - begin_));
  }

 private:
  static constexpr std::size_t kCapacity = 256U << 10U;

  Result<bool> fill() {
    if (begin_ > 0) {
      std::memmove(buffer_.data(), buffer_.data() + begin_, end_ - begin_);
      end_ -= begin_;
      begin_ = 0;
    }
    const auto n = SBX_TRY(source_(std::span<char>(buffer_).subspan(end_)), "reading");
    end_ += n;
    return n > 0;
  }

  const ByteSource& source_;
  MemoryFilterStatistics& statistics_;
  std::vector<char> buffer_ = std::vector<char>(kCapacity);
  std::size_t begin_ = 0;
  std::size_t end_ = 0;
};

class Writer {
 public:
  Writer(const ByteSink& sink, MemoryFilterStatistics& statistics) : sink_(sink), statistics_(statistics) {}

  Result<void> put(std::string_view bytes) {
    buffer_.append(bytes);
    statistics_.bytes_out += bytes.size();
    return buffer_.size() < (256U << 10U) ? Result<void>{} : flush();
  }
  Result<void> put_u64(std::uint64_t value) {
    char bytes[8];
    for (int i = 7; i >= 0; --i, value >>= 8U) bytes[i] = static_cast<char>(value & 0xffU);
    return put({bytes, sizeof bytes});
  }
  Result<void> flush() {
    SBX_CHECK(sink_(buffer_), "writing the memory image");
    buffer_.clear();
    return {};
  }

 private:
  const ByteSink& sink_;
  MemoryFilterStatistics& statistics_;
  std::string buffer_;
};

class Filter {
 public:
  Filter(const ByteSource& source, const TemplateRam& template_ram, std::uint64_t memory_size, const ByteSink& sink)
      : reader_(source, statistics_), writer_(sink, statistics_), template_(template_ram), memory_size_(memory_size) {}

  Result<MemoryFilterStatistics> run() {
    SBX_CHECK(copy_to_ram_section(), "looking for the RAM section");
    SBX_CHECK(copy_block_list(), "reading the list of memory blocks");
    while (true) {
      const auto type = SBX_TRY(reader_.peek(1), "reading a section");
      if (type.empty() || (type[0] != kSectionPart && type[0] != kSectionEnd)) break;
      const auto head = SBX_TRY(reader_.take(5), "reading a section");
      const std::string header(head);
      SBX_CHECK(writer_.put(header), "section");
      if (std::string_view(header).substr(1) != section_id_) {
        return fail(ErrorCode::kInvalid, "the migration stream has a section of pages that is not the RAM's");
      }
      SBX_CHECK(filter_pages(), "filtering pages");
      SBX_CHECK(copy_footer(), "reading a section's end");
    }
    // The devices' states.
    while (true) {
      const auto rest = SBX_TRY(reader_.take_some(), "copying the devices' states");
      if (rest.empty()) break;
      SBX_CHECK(writer_.put(rest), "devices");
    }
    SBX_CHECK(writer_.flush(), "the end");
    return statistics_;
  }

 private:
  Result<void> copy(std::size_t size) {
    const auto bytes = SBX_TRY(reader_.take(size), "copying");
    return writer_.put(bytes);
  }
  Result<std::uint64_t> copy_u64() {
    const auto bytes = SBX_TRY(reader_.take(8), "reading a number");
    const std::uint64_t value = big_endian(bytes.data(), 8);
    SBX_CHECK(writer_.put(bytes), "number");
    return value;
  }

  // Start of the section "ram": type, id (4), length and name, instance (4), version (4).
  Result<void> copy_to_ram_section() {
    const auto head = SBX_TRY(reader_.peek(kLongestPreamble), "the head");
    const std::size_t name = head.find(std::string_view("\x03ram", 4));
    if (name == std::string_view::npos || name < 5 || head[name - 5] != kSectionStart) {
      return fail(ErrorCode::kInvalid, "this is no migration stream of QEMU's");
    }
    section_id_ = std::string(head.substr(name - 4, 4));
    return copy(name + 4 + 8);
  }

  // Total size, then name and length of each block; then flags up to the end of the section.
  Result<void> copy_block_list() {
    const std::uint64_t first = SBX_TRY(copy_u64(), "total size");
    if ((first & (kPage - 1)) != kFlagMemorySize) return fail(ErrorCode::kInvalid, "no list of memory blocks");
    const std::uint64_t total = first & ~std::uint64_t{kPage - 1};
    std::uint64_t seen = 0;
    for (std::size_t i = 0; seen < total; ++i) {
      if (i == kMostBlocks) return fail(ErrorCode::kInvalid, "too many memory blocks");
      const std::string name = SBX_TRY(copy_name(), "a block's name");
      const std::uint64_t size = SBX_TRY(copy_u64(), "a block's size");
      if (size == 0 || size > total - seen) return fail(ErrorCode::kInvalid, "the memory blocks' sizes are wrong");
      if (name == kRamBlock && size != memory_size_) {
        return fail(ErrorCode::kInvalid, "the machine's memory is not as large as the template's");
      }
      seen += size;
    }
    for (std::size_t i = 0; i < kMostBlocks; ++i) {
      if ((SBX_TRY(copy_u64(), "flags") & kFlagEndOfSection) != 0) return copy_footer();
    }
    return fail(ErrorCode::kInvalid, "the list of memory blocks does not end");
  }

  Result<void> copy_footer() {
    const auto bytes = SBX_TRY(reader_.take(5), "a section's footer");
    if (bytes[0] != kSectionFooter || bytes.substr(1) != section_id_) {
      return fail(ErrorCode::kInvalid, "a section of the migration stream has no footer");
    }
    return writer_.put(bytes);
  }

  Result<std::string> take_name() {
    const auto size = static_cast<unsigned char>(SBX_TRY(reader_.take(1), "a name's length")[0]);
    return std::string(SBX_TRY(reader_.take(size), "a name"));
  }
  Result<std::string> copy_name() {
    const std::string name = SBX_TRY(take_name(), "a name");
    SBX_CHECK(put_name(name), "a name");
    return name;
  }
  Result<void> put_name(const std::string& name) {
    const char size = static_cast<char>(static_cast<unsigned char>(name.size()));
    SBX_CHECK(writer_.put({&size, 1}), "a name");
    return writer_.put(name);
  }

  Result<void> filter_pages() {
    while (true) {
      const std::uint64_t word = big_endian(SBX_TRY(reader_.take(8), "a page's head").data(), 8);
      const std::uint64_t flags = word & (kPage - 1);
      const std::uint64_t address = word & ~std::uint64_t{kPage - 1};
      if (flags == kFlagEndOfSection || flags == kFlagMultifdFlush) {
        SBX_CHECK(writer_.put_u64(word), "flags");
        if (flags == kFlagEndOfSection) return {};
        continue;
      }
      const std::uint64_t kind = flags & ~kFlagContinue;
      if (kind != kFlagPage && kind != kFlagZero) {
        return fail(ErrorCode::kInvalid, "the migration stream has a record of a kind that is not known");
      }
      if ((flags & kFlagContinue) == 0) {
        block_ = SBX_TRY(take_name(), "a page's block");
      } else if (block_.empty()) {
        return fail(ErrorCode::kInvalid, "a page continues a block before there was one");
      }
      const auto body = SBX_TRY(reader_.take(kind == kFlagPage ? kPage : 1), "a page");
      if (!SBX_TRY(keep(block_, address, kind, body), "a page")) continue;
      // Each with its block's name: what it continued may have been dropped.
      SBX_CHECK(writer_.put_u64(address | kind), "a page");
      SBX_CHECK(put_name(block_), "a page");
      SBX_CHECK(writer_.put(body), "a page");
    }
  }

  Result<bool> keep(std::string_view block, std::uint64_t address, std::uint64_t kind, std::string_view body) {
    if (block != kRamBlock) return true;
    if (address >= memory_size_ || memory_size_ - address < kPage) {
      return fail(ErrorCode::kInvalid, "a page lies outside the machine's memory");
    }
    const bool hole = template_.bytes.empty() || (!template_.has_data.empty() && !template_.has_data[address / kPage]);
    const char* before = hole ? kZeroPage.data() : template_.bytes.data() + address;
    if (kind == kFlagPage) {
      ++statistics_.pages;
      const bool differs = std::memcmp(before, body.data(), kPage) != 0;
      statistics_.pages_kept += differs ? 1 : 0;
      return differs;
    }
    ++statistics_.zero_pages;
    const bool differs = body[0] != 0 || (!hole && std::memcmp(before, kZeroPage.data(), kPage) != 0);
    statistics_.zero_pages_kept += differs ? 1 : 0;
    return differs;
  }

  MemoryFilterStatistics statistics_;
  Reader reader_;
  Writer writer_;
  const TemplateRam& template_;
  std::uint64_t memory_size_;
  std::string section_id_;
  std::string block_;  // of the last page with a name; a page may continue it even across sections
};

}  // namespace

Result<MemoryFilterStatistics> filter_memory(const ByteSource& source, const TemplateRam& template_ram,
                                             std::uint64_t memory_size, const ByteSink& sink) {
  const bool fits = template_ram.bytes.empty() || template_ram.bytes.size() == memory_size;
  const bool mapped = template_ram.has_data.empty() || template_ram.has_data.size() == memory_size / kPage;
  if (memory_size == 0 || memory_size % kPage != 0 || !fits || !mapped) {
    return fail(ErrorCode::kInvalid, "the template's memory does not fit the machine's");
  }
  return Filter(source, template_ram, memory_size, sink).run();
}

}  // namespace sbx::vm

extern "C" int sbx_fuzz_memory_filter(const unsigned char* data, unsigned long size) {
  static const std::vector<char> bytes(64 * 4096, 'x');
  static const sbx::vm::TemplateRam ram{bytes, {}};
  std::string_view rest(reinterpret_cast<const char*>(data), size);
  const sbx::vm::ByteSource source = [&rest](std::span<char> buffer) -> sbx::Result<std::size_t> {
    const std::size_t n = std::min(buffer.size(), rest.size());
    std::memcpy(buffer.data(), rest.data(), n);
    rest.remove_prefix(n);
    return n;
  };
  const sbx::vm::ByteSink sink = [](std::string_view) { return sbx::Result<void>{}; };
  (void)sbx::vm::filter_memory(source, ram, bytes.size(), sink);
  return 0;
}
