// MachineProcess: one jailed QEMU, with everything it needs open and nothing said to it yet. Owns the process;
// destroying it kills QEMU and waits for its end.
//
// Nothing here reads a byte that QEMU or the guest wrote, but for log(). Speaking QMP is MachineControl's.
// Blocking calls; the thread that calls start() must live as long as the process (the jail dies with it).
#pragma once

#include <chrono>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "base/command.h"
#include "base/result.h"
#include "base/unique_fd.h"
#include "vm/machine_spec.h"

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

// Where a template's RAM is while it is built, if there is room. The same for every build of it, so that the next one
// clears away what one that was killed has left.
std::filesystem::path ram_in_memory(const std::filesystem::path& ram);

class MachineProcess {
 public:
  // fork and exec; returns before QEMU answers. machine.qemu_major is found out if it is 0.
  static Result<MachineProcess> start(StartSpec spec);
  MachineProcess(MachineProcess&&) noexcept = default;
  MachineProcess& operator=(MachineProcess&&) noexcept;
  ~MachineProcess();

  // Our end of the QMP connection; once.
  UniqueFd take_qmp() { return std::move(qmp_); }
  // To be called when QMP has answered: QEMU has the RAM open by then, and nobody else needs its name.
  void forget_ram_name();
  // kTemplate, state saved: puts the RAM into its file, if it is not there already (blocking, about a second).
  Result<void> keep_template_ram();

  const StartSpec& spec() const { return spec_; }  // with what start() filled in
  int pidfd() const { return process_.pidfd(); }   // of the jail's outer process
  pid_t jail_pid() const { return process_.pid(); }
  bool running() const { return process_.running(); }
  Result<pid_t> qemu_pid() const;
  // What QEMU has written since the last call (it keeps 64 KiB, what comes after is lost), as one line.
  std::string log() const;
  // SIGKILL for QEMU itself, so that when the jail has ended QEMU has let go of the disk. Does not wait.
  void kill();
  // Blocks until the end; the same answer again afterwards.
  Result<ExitStatus> wait();
  // Waits until the deadline, then kills and answers kTimeout.
  Result<ExitStatus> wait_or_kill(std::chrono::milliseconds deadline);

 private:
  MachineProcess() = default;

  StartSpec spec_;
  UniqueFd ram_;  // kTemplate built in /dev/shm
  UniqueFd log_;
  UniqueFd qmp_;
  Subprocess process_;
  std::optional<ExitStatus> exit_status_;
};

// A listening socket RUNTIME/NAME, replacing one of an earlier VM. Works for folders longer than a socket address.
Result<UniqueFd> listen_in(const std::filesystem::path& runtime_folder, std::string_view name);
Result<UniqueFd> listen_in(const std::filesystem::path& runtime_folder, std::string_view name, int type);
// Connects to a port's socket (0 control, 1 network, 2 files), non-blocking, close-on-exec.
Result<UniqueFd> connect_port(const std::filesystem::path& runtime_folder, int port);

}  // namespace sbx::vm
