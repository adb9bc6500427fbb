// sbx-memory-filter: one memory image, from descriptor to descriptor. Started in a jail by VirtualMachine; see
// memory_filter.h.
//   save IN TEMPLATE_RAM MEMORY_BYTES OUT    (descriptor numbers; TEMPLATE_RAM -1: no template)
//   load IN OUT
#include <cstdio>
#include <cstdlib>
#include <string_view>

#include "base/sanitizers.h"
#include "vm/memory_filter.h"

#if SBX_ADDRESS_SANITIZER
// The leak check needs /proc, which the jail does not have.
extern "C" const char* __asan_default_options() { return "detect_leaks=0"; }
#endif

namespace {

int finish(const sbx::Result<void>& result) {
  if (result) return 0;
  std::fprintf(stderr, "sbx-memory-filter: %s\n", result.error().describe().c_str());
  return 1;
}

}  // namespace

int main(int argc, char** argv) {
  const std::string_view mode = argc > 1 ? argv[1] : "";
  if (mode == "save" && argc == 6) {
    const auto statistics = sbx::vm::write_memory_image(std::atoi(argv[2]), std::atoi(argv[3]),
                                                        std::strtoull(argv[4], nullptr, 10), std::atoi(argv[5]));
    if (!statistics) return finish(std::unexpected(statistics.error()));
    return 0;
  }
  if (mode == "load" && argc == 4) return finish(sbx::vm::expand_memory_image(std::atoi(argv[2]), std::atoi(argv[3])));
  std::fprintf(stderr, "usage: sbx-memory-filter save IN TEMPLATE_RAM MEMORY_BYTES OUT | load IN OUT\n");
  return 2;
}
