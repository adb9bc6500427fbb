// VirtualMachine: one jailed QEMU, from start to exit: its process and its control in one, for a program that may hold
// both (a test, a trial; the keeper keeps them in two processes). Destroying it kills QEMU.
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
#include <string>

#include "vm/awaitable.h"
#include "vm/machine_control.h"
#include "vm/machine_process.h"

namespace sbx::vm {

class VirtualMachine {
 public:
  using Duration = std::chrono::steady_clock::duration;

  // Returns when QMP answers.
  static Awaitable<Result<std::unique_ptr<VirtualMachine>>> start(StartSpec spec);

  // kClone: loads the device state beside the template's RAM; the machine is then paused.
  Awaitable<Result<void>> load_state(std::filesystem::path state, Duration deadline = std::chrono::seconds(20));
  // kClone, kRestore: loads a memory image written by save_memory_image; the machine is then paused.
  Awaitable<Result<void>> load_memory_image(std::filesystem::path image, Duration deadline = std::chrono::seconds(120));
  Awaitable<Result<void>> load_stream(int fd, bool ignore_shared, Duration deadline);

  Awaitable<Result<void>> resume() { return control_->resume(); }
  Awaitable<Result<void>> pause() { return control_->pause(); }
  // kTemplate, paused: writes the device state (0600), and the RAM if it is not in its file already (blocking, about a
  // second). Once; seal_template comes next.
  Awaitable<Result<void>> save_template_state(std::filesystem::path state,
                                              Duration deadline = std::chrono::seconds(60));
  // Paused: QEMU's whole migration stream, RAM included, into `fd` (a pipe's writing end or a file).
  Awaitable<Result<void>> save_full_stream(int fd, Duration deadline = std::chrono::seconds(120));
  // Paused: a new file `image` by start_saving_memory (memory_image.h), complete and fsynced at return.
  Awaitable<Result<void>> save_memory_image(std::filesystem::path image, Duration deadline = std::chrono::seconds(120));

  Awaitable<Result<std::string>> status() { return control_->status(); }
  // Ends QEMU and waits for it; the disk is flushed. kTimeout: it was killed instead.
  Awaitable<Result<ExitStatus>> quit(Duration deadline = std::chrono::seconds(10));
  // Waits for the end of the process by whatever cause. The VM must outlive the wait.
  Awaitable<Result<ExitStatus>> exited();

  const StartSpec& spec() const { return process_.spec(); }
  QmpClient& qmp() { return control_->qmp(); }
  int pidfd() const { return process_.pidfd(); }
  pid_t jail_pid() const { return process_.jail_pid(); }
  Result<pid_t> qemu_pid() const { return process_.qemu_pid(); }
  std::string log() const { return process_.log(); }

 private:
  explicit VirtualMachine(MachineProcess process) : process_(std::move(process)) {}

  MachineProcess process_;
  std::unique_ptr<MachineControl> control_;
};

}  // namespace sbx::vm
