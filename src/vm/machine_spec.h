// MachineSpec: what a virtual machine is, as data, and the QEMU command line that makes it.
//
// Nothing here starts anything. Descriptor numbers are those that the child process will have (Command::keep_fd keeps
// numbers). Template and clone must come from specs that differ in nothing but purpose, descriptors and kernel, or
// QEMU refuses the state or, worse, loads it and hangs.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace sbx::vm {

enum class Accelerator { kTcg, kKvm };
std::string_view to_string(Accelerator accelerator);  // "tcg", "kvm"
Result<Accelerator> accelerator_from(std::string_view word);

enum class Purpose {
  kTemplate,  // boots a kernel; RAM is a shared file that becomes the template's; flushes are skipped
  kClone,     // waits for a template's state; RAM is the template's file, mapped copy-on-write
  kBoot,      // boots a kernel on an existing sandbox disk with private, anonymous RAM
  kRestore,   // waits for a whole memory image of a kBoot machine; private, anonymous RAM
};

enum class DiskFormat { kRaw, kQcow2 };

// One image of the root disk, open: O_RDWR for the first of the chain, O_RDONLY for the others.
struct DiskNode {
  int fd = -1;
  DiskFormat format = DiskFormat::kQcow2;
};

// The three virtio-serial ports in the order of their numbers, 1 to 3.
inline constexpr std::string_view kPortNames[] = {"sbx.control", "sbx.network", "sbx.files"};
inline constexpr std::string_view kPortSockets[] = {"control.sock", "network.sock", "files.sock"};

struct MachineSpec {
  Purpose purpose = Purpose::kClone;
  Accelerator accelerator = Accelerator::kTcg;
  int qemu_major = 10;
  int cpus = 1;
  int memory_mib = 2048;
  int translation_cache_mib = 256;  // TCG's tb-size: 128 thrashes in a docker run, more costs memory
  // Top (the writable one) first, then what backs it, down to the base.
  std::vector<DiskNode> disk_chain;
  std::string ram_path;  // as QEMU sees it (in the jail: /ram); kTemplate and kClone only
  // kTemplate and kBoot only; as QEMU sees them.
  std::string kernel;
  std::string initramfs;
  std::string append;              // added to default_kernel_arguments()
  int port_fds[3] = {-1, -1, -1};  // listening unix sockets
  int qmp_fd = -1;                 // one end of a connected socket pair
  // Open for writing (O_WRONLY); what the guest writes there is unbounded, so a pipe that someone reads, or a guest
  // that is trusted. -1: the serial port goes nowhere.
  int console_fd = -1;
};

// Everything after the program's name.
std::vector<std::string> qemu_arguments(const MachineSpec& spec);

// The kernel command line every guest boots with.
std::string default_kernel_arguments(Accelerator accelerator, int qemu_major, Purpose purpose = Purpose::kTemplate);

// The command line with all descriptors and paths blanked: what a template's identity hashes.
std::string canonical_command_line(MachineSpec spec);

}  // namespace sbx::vm
