// Which accelerator this host truly has.
//
// /dev/kvm opening proves nothing: on hosts with kvm_pvm it opens, makes VMs and even runs real-mode code, but stock
// 64-bit kernels hang. So: the module kvm_intel or kvm_amd must be loaded, /dev/kvm must open, and a canary (our own
// guest kernel, without a root disk) must get to the point where it misses its root, within a deadline.
#pragma once

#include <chrono>
#include <filesystem>
#include <functional>
#include <string>

#include "base/result.h"
#include "vm/machine_spec.h"

namespace sbx::vm {

struct AcceleratorVerdict {
  Accelerator accelerator = Accelerator::kTcg;
  std::string reason;  // one sentence for diagnose
  bool cached = false;
};

// The host as the decision sees it: replaced in tests.
struct AcceleratorHost {
  std::filesystem::path modules = "/sys/module";
  std::filesystem::path device = "/dev/kvm";
  std::filesystem::path boot_id = "/proc/sys/kernel/random/boot_id";
  // Runs the canary and returns what it wrote to its console; an Error if it did not end in time.
  std::function<Result<std::string>()> canary;
};

// Boots `kernel` under KVM with -cpu host and no disk. Blocking, at most `deadline`.
std::function<Result<std::string>()> canary_with(std::filesystem::path kernel,
                                                 std::chrono::milliseconds deadline = std::chrono::seconds(10),
                                                 std::string qemu = "/usr/bin/qemu-system-x86_64");

// Blocking. The verdict is kept in `cache` (may be empty) for this boot of the host. SBX_ACCELERATOR=tcg in the
// environment overrules.
AcceleratorVerdict probe_accelerator(const AcceleratorHost& host, const std::filesystem::path& cache);

}  // namespace sbx::vm
