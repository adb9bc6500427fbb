#include "keeper/template_key.h"

#include <string>

namespace sbx::keeper {

Result<vm::TemplateKey> template_key(const std::filesystem::path& image_folder,
                                     const std::filesystem::path& guest_binary, vm::Accelerator accelerator, int cpus,
                                     int memory_mib) {
  const auto version = SBX_TRY(vm::qemu_version(), "asking QEMU for its version");
  vm::MachineSpec machine;
  machine.purpose = vm::Purpose::kTemplate;
  machine.accelerator = accelerator;
  machine.qemu_major = version.major;
  machine.cpus = cpus;
  machine.memory_mib = memory_mib;

  vm::TemplateKey key;
  key.kernel = image_folder.filename().string();
  key.root_image = image_folder.filename().string();
  key.guest_binary = SBX_TRY(vm::file_sha256(guest_binary), "hashing sbx-guest");
  key.command_line = vm::canonical_command_line(machine);
  key.qemu_version = version.text;
  // What else template_builder.cpp does to the guest goes by the hashes of its and of rehearsal.cpp's source.
  key.warm_up = std::string(kWarmUp) + "\n# " SBX_TEMPLATE_BUILDER;
  if (accelerator == vm::Accelerator::kKvm) key.cpu_model = SBX_TRY(vm::host_cpu_model(), "reading the CPU model");
  key.accelerator = accelerator;
  key.cpus = cpus;
  key.memory_mib = memory_mib;
  return key;
}

}  // namespace sbx::keeper
