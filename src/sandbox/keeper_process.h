// Starting sbx-keeper and knowing one again: it lives in a session of its own and outlives the daemon.
#pragma once

#include <boost/asio/posix/stream_descriptor.hpp>
#include <chrono>
#include <filesystem>
#include <nlohmann/json_fwd.hpp>

#include "base/unique_fd.h"
#include "sandbox/async.h"

namespace sbx::sandbox {

struct KeeperProcess {
  pid_t pid = 0;
  std::int64_t start_time = 0;  // see process_start_time()
  UniqueFd pidfd;               // readable once it has ended
  UniqueFd output;              // its stdout
};

// fork and exec, no waiting; it inherits `gateway_fd` (-1: none), its stderr is appended to `log`.
Result<KeeperProcess> spawn_keeper(const std::filesystem::path& program, const nlohmann::json& spec, int gateway_fd,
                                   const std::filesystem::path& log);

// A keeper that runs on this runtime folder, although its pid got into no row (the daemon was killed before that), is
// killed; returns when it has ended. spawn_keeper() locks a file in the folder that stays locked for as long as the
// keeper lives, and the keeper writes its pid there before anything else.
Awaitable<Result<void>> end_unrecorded_keeper(std::filesystem::path runtime_folder);

// The keeper's one line on stdout: nothing if it says ready, else the Error it tells, or kTimeout, or (when it ended
// without a word) kInternal with the end of its log.
Awaitable<Result<void>> wait_until_ready(UniqueFd output, std::chrono::milliseconds deadline,
                                         std::filesystem::path log);

// Field 22 of proc_pid_stat(5): together with the pid it names one process of this boot. 0 if there is none.
std::int64_t process_start_time(pid_t pid);

// A pidfd of exactly this process; kNotFound if it is gone or the pid is another process now.
Result<UniqueFd> open_process(pid_t pid, std::int64_t start_time);

void kill_process(int pidfd, int signal);
// Of one that has ended; without effect on an adopted one, which init reaps.
void reap_keeper(pid_t pid);

}  // namespace sbx::sandbox
