// A template: a machine that booted once, saved at rest, of which every sandbox is a clone.
//
// A folder named by everything that made it: ram, state, disk.qcow2, manifest.json. Immutable once the manifest is
// there; built in a temporary folder beside it and renamed.
#pragma once

#include <filesystem>
#include <string>

#include "base/result.h"
#include "vm/machine_spec.h"

namespace sbx::vm {

struct TemplateKey {
  std::string kernel;        // hash
  std::string root_image;    // image id
  std::string guest_binary;  // hash of sbx-guest
  std::string command_line;  // canonical_command_line()
  std::string qemu_version;  // qemu_version().text
  std::string warm_up;       // what is run in the guest before it is saved
  std::string cpu_model;     // host_cpu_model() under KVM, else ""
  Accelerator accelerator = Accelerator::kTcg;
  int cpus = 1;
  int memory_mib = 2048;
};

// 32 hexadecimal digits of the SHA-256 of all of it.
std::string template_id(const TemplateKey& key);

struct TemplatePaths {
  explicit TemplatePaths(std::filesystem::path template_folder) : folder(std::move(template_folder)) {}
  std::filesystem::path folder;
  std::filesystem::path ram() const { return folder / "ram"; }
  std::filesystem::path state() const { return folder / "state"; }
  std::filesystem::path disk() const { return folder / "disk.qcow2"; }
  std::filesystem::path manifest() const { return folder / "manifest.json"; }
};

struct TemplateManifest {
  TemplateKey key;
  std::string id;
  std::string created_at;  // RFC 3339
  std::uint64_t state_bytes = 0;
  std::int64_t boot_ms = 0;
};

// Read refuses (kInvalid) a manifest whose id is not that of its key.
Result<TemplateManifest> read_manifest(const TemplatePaths& paths);

// Writes `from`'s bytes to the empty file `to`, leaving zero pages out as holes. Blocking, about a second per 2 GiB.
Result<void> copy_without_zeros(int from, int to);

// Ends a build: digs holes into the RAM file where it is zero, makes ram, state and disk read-only (0444: the jailed
// uid of each clone reads ram; the folders above are private), owned by us, fsyncs, and writes the manifest last.
Result<void> seal_template(const TemplatePaths& paths, const TemplateManifest& manifest);

struct QemuVersion {
  int major = 0;
  std::string text;  // first line of -version
};
Result<QemuVersion> parse_qemu_version(std::string_view text);
// Runs QEMU (20 to 50 ms).
Result<QemuVersion> qemu_version(const std::string& program = "/usr/bin/qemu-system-x86_64");

// Model name, family, stepping and microcode of /proc/cpuinfo.
Result<std::string> host_cpu_model();

// SHA-256 in hexadecimal.
Result<std::string> file_sha256(const std::filesystem::path& path);
std::string sha256(std::string_view bytes);

}  // namespace sbx::vm
