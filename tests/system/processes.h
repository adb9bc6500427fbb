// The processes of the system tests' instance, as the host's /proc shows them: for tests that kill them.
#pragma once

#include <signal.h>
#include <sys/types.h>

#include <cstdint>
#include <string>
#include <vector>

namespace sbx::test {

struct Process {
  pid_t pid = 0;
  pid_t parent = 0;
  std::int64_t start_time = 0;
  std::string name;  // as the kernel has it: at most 15 characters
};

std::vector<Process> all_processes();
// `root` and everything below it.
std::vector<Process> process_tree(pid_t root);
// The first process of this name in the tree; 0 if there is none.
pid_t find_in_tree(pid_t root, const std::string& name);
// Whether exactly this process still runs (a zombie does not).
bool runs(const Process& process);
// Processes with a descriptor open below this folder, but for this test.
std::vector<Process> processes_using(const std::string& folder);
// Processes with a descriptor open under $SBX_HOME, but for the daemon and this test: keepers and what they started.
std::vector<Process> sandbox_processes();
// CPU time of a process, in clock ticks (proc_pid_stat(5), fields 14 and 15); 0 if there is none.
long cpu_ticks(pid_t pid);
pid_t daemon_pid();  // 0: none
// SIGKILL to one process; false if there was none.
bool kill_now(pid_t pid);
std::string describe(const std::vector<Process>& processes);

}  // namespace sbx::test
