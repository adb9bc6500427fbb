// QEMU's migration stream, as a QEMU that its guest has taken over might send it.
#include <cstddef>
#include <cstdint>

#include "vm/memory_filter.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  return sbx_fuzz_memory_filter(data, size);
}
