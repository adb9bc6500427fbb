// VirtualMachine: one jailed QEMU, from start to exit. Owns the process and its QMP connection; destroying it kills it.
//
//   StartSpec spec;
//   spec.machine.purpose = Purpose::kClone;
//   spec.machine.memory_mib = 2048;
//   spec.disks = {{sandbox / "disk.qcow2"}, {paths.disk()}, {image / "root.ext4", DiskFormat::kRaw}};
//   spec.ram = paths.ram();
//   spec.runtime_folder = runtime;
//   SBX_CO_TRY(auto vm, co_await VirtualMachine::start(std::move(spec)), "starting the VM");
//   SBX_CO_CHECK((co_await vm->load_state(paths.state())), "loading the template");   // or load_memory_image
//   SBX_CO_CHECK(co_await vm->resume(), "resuming");
//   SBX_TRY(auto control, connect_port(runtime, 0), ...)
//
// One thread: that of the executor which runs start(). The thread that calls start() must live as long as the VM (the
// jail dies with it).
#pragma once

#include <chrono>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/command.h"
#include "base/result.h"
#include "base/unique_fd.h"
#include "vm/awaitable.h"
#include "vm/machine_spec.h"
#include "vm/qmp_client.h"

namespace sbx::vm {

struct DiskFile {
  std::filesystem::path path;
  DiskFormat format = DiskFormat::kQcow2;
};

struct StartSpec {
  // Purpose, accelerator, sizes, append. Descriptors and paths in it are filled in by start().
  MachineSpec machine;
  std::vector<DiskFile> disks;  // top first
  // kTemplate: made by save_template_state (or at start, if /dev/shm has no room to build it in). kClone: the
  // template's. Bound into the jail as /ram.
  std::filesystem::path ram;
  std::filesystem::path ram_in_jail;     // filled in by start(), if QEMU gets another file than `ram`
  std::filesystem::path kernel;          // kTemplate, kBoot
  std::filesystem::path initramfs;       // kTemplate, kBoot; may be empty
  std::filesystem::path runtime_folder;  // where the ports' sockets are made; 0700
  // Where the serial console goes (see MachineSpec::console_fd); -1: nowhere. Duplicated for QEMU; the caller keeps it.
  int console_fd = -1;
  // Where QEMU's own messages go; -1: a pipe, see log().
  int log_fd = -1;
  std::string qemu = "/usr/bin/qemu-system-x86_64";
  // uid in the jail; unset: jail_uid_for(runtime_folder).
  std::optional<unsigned> uid;
  bool jail = true;  // false only for trials
  std::chrono::steady_clock::duration deadline = std::chrono::seconds(20);
};

class VirtualMachine {
 public:
  using Duration = std::chrono::steady_clock::duration;

  // Returns when QMP answers. machine.qemu_major is found out if it is 0.
  static Awaitable<Result<std::unique_ptr<VirtualMachine>>> start(StartSpec spec);
  ~VirtualMachine();
  VirtualMachine(const VirtualMachine&) = delete;
  VirtualMachine& operator=(const VirtualMachine&) = delete;

  // kClone: loads the device state beside the template's RAM; the machine is then paused.
  Awaitable<Result<void>> load_state(std::filesystem::path state, Duration deadline = std::chrono::seconds(20));
  // kClone, kRestore: loads a memory image written by save_memory_image; the machine is then paused.
  Awaitable<Result<void>> load_memory_image(std::filesystem::path image, Duration deadline = std::chrono::seconds(120));
  // Loads QEMU's own stream from `fd` (pipe or file).
  Awaitable<Result<void>> load_stream(int fd, bool ignore_shared, Duration deadline);

  // Also after a save: QEMU then refuses another save until the machine has run (resume, pause).
  Awaitable<Result<void>> resume();
  Awaitable<Result<void>> pause();
  // kTemplate, paused: writes the device state (0600), and the RAM if it is not in its file already (blocking, about a
  // second). Once; seal_template comes next.
  Awaitable<Result<void>> save_template_state(std::filesystem::path state,
                                              Duration deadline = std::chrono::seconds(60));
  // Paused: QEMU's whole migration stream, RAM included, into `fd` (a pipe's writing end or a file).
  Awaitable<Result<void>> save_full_stream(int fd, Duration deadline = std::chrono::seconds(120));
  // Paused: the whole stream without the pages that the template has, compressed, into a new file `image` (0600,
  // complete and fsynced at return). A machine without a template (kBoot, kRestore) leaves out zero pages only.
  Awaitable<Result<void>> save_memory_image(std::filesystem::path image, Duration deadline = std::chrono::seconds(120));

  // "running", "paused", "inmigrate", "shutdown", ...
  Awaitable<Result<std::string>> status();
  // Ends QEMU and waits for it; the disk is flushed. kTimeout: it was killed instead.
  Awaitable<Result<ExitStatus>> quit(Duration deadline = std::chrono::seconds(10));
  // Waits for the end of the process by whatever cause. The VM must outlive the wait.
  Awaitable<Result<ExitStatus>> exited();

  const StartSpec& spec() const { return spec_; }  // with what start() filled in
  QmpClient& qmp() { return *qmp_; }
  int pidfd() const;       // of the jail's outer process
  pid_t jail_pid() const;  // the jail's outer process
  Result<pid_t> qemu_pid() const;
  // What QEMU has written since the last call (it keeps 64 KiB, what comes after is lost), as one line.
  std::string log() const;

 private:
  VirtualMachine() = default;
  Awaitable<Result<void>> migrate_out(int fd, bool ignore_shared, Duration deadline);
  Awaitable<Result<void>> set_migration(bool ignore_shared);
  Awaitable<Result<std::string>> hand_over(int fd);
  Awaitable<void> take_back();
  Result<ExitStatus> reap();
  void kill();

  StartSpec spec_;
  UniqueFd ram_;  // kTemplate built in /dev/shm
  UniqueFd log_;
  Subprocess process_;
  std::unique_ptr<QmpClient> qmp_;
  std::optional<ExitStatus> exit_status_;
};

// A listening socket RUNTIME/NAME, replacing one of an earlier VM. Works for folders longer than a socket address.
Result<UniqueFd> listen_in(const std::filesystem::path& runtime_folder, std::string_view name);
// Connects to a port's socket (0 control, 1 network, 2 files), non-blocking, close-on-exec.
Result<UniqueFd> connect_port(const std::filesystem::path& runtime_folder, int port);

}  // namespace sbx::vm
