#include "keeper/machine.h"

#include <fcntl.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include "base/file.h"
#include "vm/overlay.h"
#include "vm/template.h"

namespace sbx::keeper {

namespace fs = std::filesystem;
using MachineResult = Result<std::unique_ptr<vm::VirtualMachine>>;

namespace {

// Beside a memory image: whether it was taken of a clone (and so lacks the template's pages) or of a cold boot.
fs::path memory_base_note(const LaunchSpec& spec) { return spec.sandbox_folder / "memory.base"; }

vm::StartSpec start_spec(const LaunchSpec& spec, vm::Purpose purpose) {
  const vm::TemplatePaths paths(spec.template_folder);
  vm::StartSpec start;
  start.machine.purpose = purpose;
  start.machine.accelerator = spec.accelerator;
  start.machine.qemu_major = 0;
  start.machine.cpus = spec.cpus;
  start.machine.memory_mib = spec.memory_mib;
  start.disks = {{spec.disk()}, {paths.disk()}, {spec.root_image(), vm::DiskFormat::kRaw}};
  start.ram = paths.ram();
  if (purpose == vm::Purpose::kBoot) {
    start.kernel = spec.kernel();
    start.initramfs = spec.initramfs();
  }
  start.runtime_folder = spec.runtime_folder;
  return start;
}

Result<void> ensure_disk(const LaunchSpec& spec) {
  if (fs::exists(spec.disk())) return {};
  const vm::TemplatePaths paths(spec.template_folder);
  vm::OverlayOptions options;
  options.virtual_size =
      SBX_TRY(vm::virtual_disk_size(paths.disk(), vm::DiskFormat::kQcow2), "reading the template's disk");
  options.backing_file = paths.disk().string();
  options.backing_format = vm::DiskFormat::kQcow2;
  return vm::create_overlay(spec.disk(), options);
}

Result<void> discard_memory_image(const LaunchSpec& spec) {
  for (const auto& path : {spec.memory_image(), memory_base_note(spec)}) {
    if (::unlink(path.c_str()) != 0 && errno != ENOENT) return fail_errno("removing " + path.string(), errno);
  }
  return sync_folder(spec.sandbox_folder);
}

wire::Awaitable<MachineResult> clone(const LaunchSpec& spec) {
  SBX_CO_TRY(auto machine, co_await vm::VirtualMachine::start(start_spec(spec, vm::Purpose::kClone)),
             "starting the clone");
  const vm::TemplatePaths paths(spec.template_folder);
  SBX_CO_CHECK(co_await machine->load_state(paths.state()), "loading the template's state");
  co_return machine;
}

wire::Awaitable<MachineResult> resume(const LaunchSpec& spec) {
  const auto base = read_file(memory_base_note(spec), 64).value_or("template");
  const auto purpose = base == "template" ? vm::Purpose::kClone : vm::Purpose::kRestore;
  SBX_CO_TRY(auto machine, co_await vm::VirtualMachine::start(start_spec(spec, purpose)), "starting QEMU");
  SBX_CO_CHECK(co_await machine->load_memory_image(spec.memory_image()), "loading the memory image");
  SBX_CO_CHECK(discard_memory_image(spec), "using the memory image up");
  co_return machine;
}

wire::Awaitable<MachineResult> boot(const LaunchSpec& spec) {
  SBX_CO_CHECK(discard_memory_image(spec), "discarding an old memory image");
  co_return co_await vm::VirtualMachine::start(start_spec(spec, vm::Purpose::kBoot));
}

}  // namespace

wire::Awaitable<MachineResult> start_machine(LaunchSpec& spec) {
  SBX_CO_CHECK(ensure_disk(spec), "making the sandbox's disk");
  if (spec.mode == LaunchMode::kResume && !fs::exists(spec.memory_image())) spec.mode = LaunchMode::kBoot;
  MachineResult machine = fail(ErrorCode::kInternal, "no such mode");
  if (spec.mode == LaunchMode::kClone) machine = co_await clone(spec);
  if (spec.mode == LaunchMode::kResume) {
    machine = co_await resume(spec);
    if (!machine) {
      spdlog::warn("the memory image does not load, booting from the disk: {}", machine.error().describe());
      spec.mode = LaunchMode::kBoot;
    }
  }
  if (spec.mode == LaunchMode::kBoot) machine = co_await boot(spec);
  if (!machine) co_return machine;
  if (spec.mode != LaunchMode::kBoot) SBX_CO_CHECK(co_await (*machine)->resume(), "letting the guest run");
  co_return machine;
}

wire::Awaitable<Result<void>> stop_with_memory(const LaunchSpec& spec, vm::VirtualMachine& machine) {
  const fs::path temporary = spec.sandbox_folder / "memory.tmp";
  ::unlink(temporary.c_str());
  Result<void> saved = co_await machine.pause();
  if (saved) saved = co_await machine.save_memory_image(temporary);
  auto ended = co_await machine.quit();
  if (saved && !ended) saved = std::unexpected(std::move(ended.error()));
  if (saved) {
    auto disk = open_file(spec.disk(), O_RDONLY);
    if (!disk || ::fsync(disk->get()) != 0) saved = fail_errno("fsync of the disk", errno);
  }
  if (saved) {
    saved = write_file_atomically(memory_base_note(spec), spec.mode == LaunchMode::kBoot ? "none" : "template");
  }
  if (saved && ::rename(temporary.c_str(), spec.memory_image().c_str()) != 0) {
    saved = fail_errno("renaming the memory image", errno);
  }
  if (saved) saved = sync_folder(spec.sandbox_folder);
  if (!saved) {
    ::unlink(temporary.c_str());
    (void)discard_memory_image(spec);
  }
  co_return saved;
}

}  // namespace sbx::keeper
