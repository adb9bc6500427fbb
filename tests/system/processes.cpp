#include "processes.h"

#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <sstream>

#include "instance.h"

namespace sbx::test {

namespace fs = std::filesystem;

namespace {

Process read_process(pid_t pid) {
  Process process;
  const std::string stat = read_file("/proc/" + std::to_string(pid) + "/stat", 4096).value_or("");
  const auto open = stat.find('(');
  const auto close = stat.rfind(')');
  if (close == std::string::npos) return process;
  process.name = stat.substr(open + 1, close - open - 1);
  std::istringstream fields(stat.substr(close + 1));
  std::string state;
  fields >> state >> process.parent;
  if (state == "Z" || state == "X") return process;
  std::string skipped;
  for (int field = 5; field < 22; ++field) fields >> skipped;
  fields >> process.start_time;
  process.pid = pid;
  return process;
}

bool uses(pid_t pid, const std::string& prefix) {
  std::error_code error;
  for (fs::directory_iterator it("/proc/" + std::to_string(pid) + "/fd", error), end; it != end; it.increment(error)) {
    if (error) return false;
    const auto target = fs::read_symlink(it->path(), error);
    if (!error && target.string().starts_with(prefix)) return true;
  }
  return false;
}

}  // namespace

std::vector<Process> all_processes() {
  std::vector<Process> found;
  std::error_code error;
  for (fs::directory_iterator it("/proc", error), end; !error && it != end; it.increment(error)) {
    const std::string name = it->path().filename();
    pid_t pid = 0;
    if (std::from_chars(name.data(), name.data() + name.size(), pid).ec != std::errc{}) continue;
    const auto process = read_process(pid);
    if (process.pid != 0) found.push_back(process);
  }
  return found;
}

std::vector<Process> process_tree(pid_t root) {
  const auto all = all_processes();
  std::vector<Process> tree;
  for (const auto& process : all) {
    if (process.pid == root) tree.push_back(process);
  }
  for (std::size_t i = 0; i < tree.size(); ++i) {
    for (const auto& process : all) {
      if (process.parent == tree[i].pid) tree.push_back(process);
    }
  }
  return tree;
}

pid_t find_in_tree(pid_t root, const std::string& name) {
  for (const auto& process : process_tree(root)) {
    if (process.name == name) return process.pid;
  }
  return 0;
}

bool runs(const Process& process) {
  const auto now = read_process(process.pid);
  return now.pid == process.pid && now.start_time == process.start_time;
}

std::vector<Process> processes_using(const std::string& folder) {
  std::vector<Process> found;
  for (const auto& process : all_processes()) {
    if (process.pid != ::getpid() && uses(process.pid, folder + "/")) found.push_back(process);
  }
  return found;
}

std::vector<Process> sandbox_processes() {
  auto found = processes_using(home().string());
  const pid_t daemon = daemon_pid();
  std::erase_if(found, [&](const Process& process) { return process.pid == daemon || process.name == "sbx"; });
  // Who is not root cannot see what they have open that hide their memory: but their keeper is among them.
  const auto all = all_processes();
  for (std::size_t i = 0; i < found.size(); ++i) {
    for (const auto& process : all) {
      const bool known = std::ranges::any_of(found, [&](const Process& one) { return one.pid == process.pid; });
      if (process.parent == found[i].pid && !known) found.push_back(process);
    }
  }
  return found;
}

long cpu_ticks(pid_t pid) {
  const auto stat = read_file("/proc/" + std::to_string(pid) + "/stat", 4096).value_or("");
  if (stat.empty()) return 0;
  std::istringstream fields(stat.substr(stat.rfind(')') + 2));
  std::string field;
  for (int i = 3; i < 14; ++i) fields >> field;
  long user = 0;
  long system = 0;
  fields >> user >> system;
  return user + system;
}

pid_t daemon_pid() {
  const auto text = read_file(home() / "sbxd.pid", 64).value_or("0");
  const auto process = read_process(std::atoi(text.c_str()));
  return process.name == "sbxd" ? process.pid : 0;
}

bool kill_now(pid_t pid) { return pid > 1 && ::kill(pid, SIGKILL) == 0; }

std::string describe(const std::vector<Process>& processes) {
  std::string text;
  for (const auto& process : processes) text += process.name + " (" + std::to_string(process.pid) + ") ";
  return text;
}

}  // namespace sbx::test
