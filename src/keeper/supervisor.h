// Supervisor: the half of a keeper that has the user's rights. It starts QEMU, the worker and the servers of the ports
// (PortServers), each in its jail, reaps them, and keeps the sandbox's files in order. It parses the launch spec and
// the worker's fixed-size messages, and nothing else (supervision.h): no byte of the guest's, no byte of QEMU's. A
// gateway that may have connections to the SSH agent asks for them by a byte whose value does not matter
// (gateway_server.h).
//
// One thread, blocking. A worker that is taken over can make its own sandbox fail, and no more: every request is
// refused outside the one state it belongs to, and what is written down for people is ours or one line of text.
#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <string>

#include "base/command.h"
#include "base/result.h"
#include "base/unique_fd.h"
#include "keeper/launch_spec.h"
#include "keeper/port_servers.h"
#include "keeper/port_table.h"
#include "keeper/supervision.h"
#include "vm/machine_process.h"
#include "vm/memory_image.h"

namespace sbx::keeper {

// The one line on stdout; lets go of it, since who holds it open now would keep the reader waiting.
void report_line(const nlohmann::json& line);

class Supervisor {
 public:
  explicit Supervisor(LaunchSpec spec);

  // Runs the sandbox to its end, or builds the template. Tells once on stdout how the start went, and leaves exit.json
  // (docs/development/protocols.md, "Keeper launch"). Returns the program's exit status.
  int run();

 private:
  using Clock = std::chrono::steady_clock;

  Result<void> start();
  Result<void> start_machine();
  Result<void> start_worker(UniqueFd state);
  Result<UniqueFd> open_state();
  Result<void> start_servers();
  Result<void> adopt();
  Result<void> rehearse_files();
  Result<void> end_rehearsal();
  void watch();
  void worker_ended();
  void take_request();
  void obey(const Message& request);
  Result<UniqueFd> answer(Request request, std::int32_t value);
  Result<void> use_memory_up();
  Result<UniqueFd> boot_instead();
  Result<UniqueFd> save_memory();
  Result<void> commit_memory();
  Result<void> seal_template(std::int64_t boot_ms);
  Result<void> let_machine_end();
  void machine_ended();
  // When there is something to do though nothing has happened.
  std::optional<Clock::time_point> next_deadline() const;
  void tell(Event event, std::int32_t value = 0, std::int32_t more = 0, int fd = -1);
  void tell_processes();
  void report_ready(std::int64_t ms);
  void report_failure(Error error);
  int finish();
  void leave_record(bool ended_by_itself);

  LaunchSpec spec_;
  const Clock::time_point began_ = Clock::now();
  // A spare's: a pipe that sbxd reads from for as long as it wants the spare. Once nobody does, the spare ends.
  UniqueFd leash_;
  UniqueFd console_;   // kTemplate
  UniqueFd listener_;  // keeper.sock, until the worker has it
  std::optional<vm::MachineProcess> machine_;
  std::optional<ExitStatus> machine_end_;  // set once it is reaped
  std::optional<vm::LoadingMemory> loading_;
  std::optional<vm::SavingMemory> saving_;
  PortServers servers_;
  PortTable ports_;
  Subprocess worker_;
  UniqueFd socket_;  // to the worker

  bool guest_runs_ = false;
  bool reported_ = false;  // on stdout
  bool failed_ = false;
  bool left_ = false;  // the worker has said goodbye, or is gone
  bool kept_memory_ = false;
  std::optional<StopMode> stopping_;
  std::string message_;  // what exit.json tells beside the reason
  std::optional<Clock::time_point> worker_deadline_;
};

}  // namespace sbx::keeper
