#include "keeper/machine_files.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "base/file.h"
#include "image/initramfs.h"
#include "keeper/rfc3339.h"
#include "keeper/template_key.h"
#include "vm/overlay.h"
#include "vm/template.h"

namespace sbx::keeper {

namespace fs = std::filesystem;

namespace {

// Beside a memory image: whether it was taken of a clone (and so lacks the template's pages) or of a cold boot.
fs::path memory_base_note(const LaunchSpec& spec) { return spec.sandbox_folder / "memory.base"; }

Result<void> sync_file(const fs::path& path) {
  const auto file = SBX_TRY(open_file(path, O_RDONLY), "syncing");
  if (::fsync(file.get()) != 0) return fail_errno("syncing " + path.string(), errno);
  return {};
}

// A new disk is not synced before it is used; the first flush of the guest's makes its header durable too. So one
// without a header after a power cut is one on which nothing was ever promised to be.
bool begins_with_data(const fs::path& path) {
  const auto file = open_file(path, O_RDONLY);
  char magic[4] = {};
  return file && ::read(file->get(), magic, sizeof magic) == sizeof magic && std::memcmp(magic, "QFI\xfb", 4) == 0;
}

}  // namespace

vm::StartSpec machine_start(const LaunchSpec& spec, vm::Purpose purpose) {
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
  start.uid = spec.jail_uid(vm::JailRole::kMachine);
  return start;
}

vm::Purpose memory_image_purpose(const LaunchSpec& spec) {
  const auto base = read_file(memory_base_note(spec), 64).value_or("template");
  return base == "template" ? vm::Purpose::kClone : vm::Purpose::kRestore;
}

Result<void> ensure_disk(const LaunchSpec& spec) {
  if (begins_with_data(spec.disk())) return {};
  if (::unlink(spec.disk().c_str()) != 0 && errno != ENOENT) return fail_errno("removing an empty disk", errno);
  const vm::TemplatePaths paths(spec.template_folder);
  vm::OverlayOptions options;
  options.virtual_size =
      SBX_TRY(vm::virtual_disk_size(paths.disk(), vm::DiskFormat::kQcow2), "reading the template's disk");
  options.backing_file = paths.disk().string();
  options.backing_format = vm::DiskFormat::kQcow2;
  return vm::create_overlay(spec.disk(), options);
}

fs::path unfinished_memory_image(const LaunchSpec& spec) { return spec.sandbox_folder / "memory.tmp"; }

Result<void> discard_memory_image(const LaunchSpec& spec) {
  for (const auto& path : {spec.memory_image(), memory_base_note(spec), unfinished_memory_image(spec)}) {
    if (::unlink(path.c_str()) != 0 && errno != ENOENT) return fail_errno("removing " + path.string(), errno);
  }
  return sync_folder(spec.sandbox_folder);
}

Result<void> keep_memory_image(const LaunchSpec& spec, vm::Purpose purpose) {
  const auto keep = [&]() -> Result<void> {
    SBX_CHECK(sync_file(spec.disk()), "keeping the memory image");
    SBX_CHECK(write_file_atomically(memory_base_note(spec), purpose == vm::Purpose::kClone ? "template" : "none"),
              "keeping the memory image");
    if (::rename(unfinished_memory_image(spec).c_str(), spec.memory_image().c_str()) != 0) {
      return fail_errno("renaming the memory image", errno);
    }
    return sync_folder(spec.sandbox_folder);
  };
  auto kept = keep();
  if (!kept) (void)discard_memory_image(spec);
  return kept;
}

Result<vm::StartSpec> prepare_template(const LaunchSpec& spec, int console_fd) {
  const vm::TemplatePaths paths(spec.template_folder);
  SBX_CHECK(image::write_initramfs(spec.guest_binary, spec.image_folder, spec.initramfs()), "making the initramfs");
  vm::OverlayOptions options;
  options.virtual_size =
      SBX_TRY(vm::virtual_disk_size(spec.root_image(), vm::DiskFormat::kRaw), "reading the root image");
  options.backing_file = spec.root_image().string();
  SBX_CHECK(vm::create_overlay(paths.disk(), options), "making the template's disk");

  vm::StartSpec start;
  start.machine.purpose = vm::Purpose::kTemplate;
  start.machine.accelerator = spec.accelerator;
  start.machine.qemu_major = 0;
  start.machine.cpus = spec.cpus;
  start.machine.memory_mib = spec.memory_mib;
  start.disks = {{paths.disk()}, {spec.root_image(), vm::DiskFormat::kRaw}};
  start.ram = paths.ram();
  start.kernel = spec.kernel();
  start.initramfs = spec.initramfs();
  start.runtime_folder = spec.runtime_folder;
  start.console_fd = console_fd;
  return start;
}

Result<void> seal_built_template(const LaunchSpec& spec, std::int64_t boot_ms) {
  const vm::TemplatePaths paths(spec.template_folder);
  vm::TemplateManifest manifest;
  manifest.key = SBX_TRY(
      template_key(spec.image_folder, spec.guest_binary, spec.accelerator, spec.cpus, spec.memory_mib), "naming it");
  manifest.id = vm::template_id(manifest.key);
  manifest.created_at = rfc3339(std::chrono::system_clock::now());
  std::error_code ignored;
  manifest.state_bytes = fs::file_size(paths.state(), ignored);
  manifest.boot_ms = boot_ms;
  return vm::seal_template(paths, manifest);
}

}  // namespace sbx::keeper
