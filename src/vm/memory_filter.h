// The memory image of a sandbox: QEMU's migration stream without what the template already has.
//
// filter_memory drops pages that equal the template's RAM, and zero pages where the template's are zero too; all other
// records pass unchanged, each with its block's name. expand_memory is plain decompression: QEMU applies what is left
// onto a copy-on-write mapping of the template's RAM. The stream comes from a QEMU that may have been taken over:
// every length is checked, memory is bounded, and whatever is not understood ends the filter with kInvalid.
// Blocking; meant for a process of its own (sbx-memory-filter, jailed).
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace sbx::vm {

struct MemoryFilterStatistics {
  std::uint64_t pages = 0;  // pages with content
  std::uint64_t pages_kept = 0;
  std::uint64_t zero_pages = 0;
  std::uint64_t zero_pages_kept = 0;
  std::uint64_t bytes_in = 0;
  std::uint64_t bytes_out = 0;  // before compression
};

// Up to `size` bytes into `buffer`, 0 at the end.
using ByteSource = std::function<Result<std::size_t>(std::span<char> buffer)>;
using ByteSink = std::function<Result<void>(std::string_view bytes)>;

// The template's RAM as the filter compares with it.
struct TemplateRam {
  std::span<const char> bytes;  // empty: a machine without a template; then all zero
  // For each page whether the file has data there; holes are zero and need not be looked at. Empty: all have.
  std::vector<bool> has_data;
};

// The filter alone, uncompressed. `memory_size` is the machine's RAM in bytes, and the template's.
Result<MemoryFilterStatistics> filter_memory(const ByteSource& source, const TemplateRam& template_ram,
                                             std::uint64_t memory_size, const ByteSink& sink);

// From `input` (QEMU's stream) to `output` (zstd, level 1). template_ram_fd < 0: without a template.
Result<MemoryFilterStatistics> write_memory_image(int input, int template_ram_fd, std::uint64_t memory_size,
                                                  int output);
// From a memory image to QEMU's stream.
Result<void> expand_memory_image(int input, int output);

}  // namespace sbx::vm

// One input of the fuzzer: runs the filter over it against a small template.
extern "C" int sbx_fuzz_memory_filter(const unsigned char* data, unsigned long size);
