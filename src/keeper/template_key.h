// What a template is made of, as the daemon (which names it) and the keeper (which builds it) both compute it.
#pragma once

#include <filesystem>
#include <string>

#include "base/result.h"
#include "vm/template.h"

namespace sbx::keeper {

// Hashes the guest binary and asks QEMU for its version: blocking, some 100 ms. The image is named by its folder's
// name, which is its content's id and covers its kernel.
Result<vm::TemplateKey> template_key(const std::filesystem::path& image_folder,
                                     const std::filesystem::path& guest_binary, vm::Accelerator accelerator, int cpus,
                                     int memory_mib);

}  // namespace sbx::keeper
