// What a template is made of, as the daemon (which names it) and the keeper (which builds it) both compute it.
#pragma once

#include <filesystem>
#include <string_view>

#include "base/result.h"
#include "vm/template.h"

namespace sbx::keeper {

// A script for sh that runs in the guest before it is saved. What it reads is in the page cache of every clone: what
// nearly every session starts with, so that the first command does not wait for the disk, and no clone has a copy of
// its own. Not more: it is memory that the guest cannot use until it is dropped.
inline constexpr std::string_view kWarmUp =
    "bash -lc 'ls -l / | cat; id; env; sleep 0; rm -f /nonexistent; date; git --version; sudo -n true'";

// Hashes the guest binary and asks QEMU for its version: blocking, some 100 ms. The image is named by its folder's
// name, which is its content's id and covers its kernel.
Result<vm::TemplateKey> template_key(const std::filesystem::path& image_folder,
                                     const std::filesystem::path& guest_binary, vm::Accelerator accelerator, int cpus,
                                     int memory_mib);

}  // namespace sbx::keeper
