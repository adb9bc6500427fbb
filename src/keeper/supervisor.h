// Supervisor: the half of a keeper that has the user's rights. It starts QEMU, the worker and the servers of the ports,
// each in its jail, reaps them, and keeps the sandbox's files in order. It parses the launch spec and the worker's
// fixed-size messages, and nothing else (supervision.h): no byte of the guest's, no byte of QEMU's. A gateway that may
// have connections to the SSH agent asks for them by a byte whose value does not matter (gateway_server.h).
//
// One thread, blocking. A worker that is taken over can make its own sandbox fail, and no more: every request is
// refused outside the one state it belongs to, and what is written down for people is ours or one line of text.
#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/command.h"
#include "base/result.h"
#include "base/unique_fd.h"
#include "keeper/launch_spec.h"
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

  // The jailed process behind a port: started when the guest runs, replaced when it ends.
  struct Server {
    std::string name;
    // `control` becomes the keeper's end of a socket to the server, if it has one.
    Result<Subprocess> (*start)(const LaunchSpec& spec, UniqueFd& control);
    std::optional<Event> replaced;  // what the worker is told when another one took over
    Subprocess process;
    int restarts = 0;  // in quick succession
    UniqueFd control;  // sbx-files': until the worker has it
    Clock::time_point started = {};
    std::optional<Clock::time_point> due = {};  // when it is started again
  };

  Result<void> start();
  Result<void> start_machine();
  Result<void> start_worker(UniqueFd state);
  Result<UniqueFd> open_state();
  Result<void> start_servers();
  void watch();
  void worker_ended();
  void take_request();
  void obey(const Message& request);
  Result<UniqueFd> answer(Request request, std::int32_t value);
  Result<void> use_memory_up();
  Result<UniqueFd> boot_instead();
  Result<UniqueFd> save_memory();
  Result<UniqueFd> connect_files();
  Result<void> commit_memory();
  Result<void> seal_template(std::int64_t boot_ms);
  Result<void> let_machine_end();
  Result<void> change_mounts();
  void machine_ended();
  Server* asking_gateway();
  void replace(Server& server);
  void start_again(Server& server);
  static std::chrono::seconds pause_before(const Server& server);
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
  UniqueFd console_;   // kTemplate
  UniqueFd listener_;  // keeper.sock, until the worker has it
  std::optional<vm::MachineProcess> machine_;
  std::optional<ExitStatus> machine_end_;  // set once it is reaped
  std::optional<vm::LoadingMemory> loading_;
  std::optional<vm::SavingMemory> saving_;
  std::vector<Server> servers_;
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
