#include "guest/spawn.h"

#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/close_range.h>
#include <linux/sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>

namespace sbx::guest {
namespace {

std::vector<char*> pointers(const std::vector<std::string>& words) {
  std::vector<char*> result;
  result.reserve(words.size() + 1);
  for (const auto& word : words) result.push_back(const_cast<char*>(word.c_str()));
  result.push_back(nullptr);
  return result;
}

[[noreturn]] void give_up(int report, SpawnStage stage, int error_number) {
  const SpawnReport said{stage, error_number};
  if (::write(report, &said, sizeof said) < 0) ::_exit(126);
  ::_exit(127);
}

void take_standard_descriptors(const SpawnPlan& plan, int report) {
  int source[3];
  for (int i = 0; i < 3; ++i) {
    source[i] = plan.standard[i] >= 0 ? ::fcntl(plan.standard[i], F_DUPFD_CLOEXEC, 10)
                                      : ::open("/dev/null", O_RDWR | O_CLOEXEC);
    if (source[i] < 0) give_up(report, SpawnStage::kSetup, errno);
  }
  for (int i = 0; i < 3; ++i) {
    // dup2 of a descriptor onto itself would keep its FD_CLOEXEC.
    if (source[i] == i ? ::fcntl(i, F_SETFD, 0) < 0 : ::dup2(source[i], i) < 0) {
      give_up(report, SpawnStage::kSetup, errno);
    }
  }
}

// After setuid(2), with PR_SET_KEEPCAPS: an unprivileged user's program keeps ambient capabilities only
// (capabilities(7)).
bool raise_all_capabilities() {
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct sets[2] = {};
  if (::syscall(SYS_capget, &header, sets) != 0) return false;
  for (auto& set : sets) set.effective = set.inheritable = set.permitted;
  if (::syscall(SYS_capset, &header, sets) != 0) return false;
  for (int number = 0; ::prctl(PR_CAPBSET_READ, number, 0, 0, 0) >= 0; ++number) {
    if (::prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, number, 0, 0) != 0) return false;
  }
  return true;
}

// sd_listen_fds(3): the socket is descriptor 3, and LISTEN_PID says whom it is meant for.
void hand_down_socket(int socket, std::vector<std::string>& environment, int report) {
  constexpr int kFirst = 3;
  if (socket == kFirst ? ::fcntl(kFirst, F_SETFD, 0) < 0 : ::dup2(socket, kFirst) < 0) {
    give_up(report, SpawnStage::kSetup, errno);
  }
  environment.push_back("LISTEN_FDS=1");
  environment.push_back("LISTEN_PID=" + std::to_string(::getpid()));
}

[[noreturn]] void run_child(const SpawnPlan& plan, int report) {
  sigset_t none;
  ::sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  for (int number = 1; number < NSIG; ++number) ::signal(number, SIG_DFL);
  ::setsid();
  take_standard_descriptors(plan, report);
  if (plan.terminal && ::ioctl(0, TIOCSCTTY, 0) != 0) give_up(report, SpawnStage::kSetup, errno);

  const auto& user = plan.user;
  if (plan.privileged) ::prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0);
  if (::setgroups(user.groups.size(), user.groups.data()) != 0 || ::setgid(user.gid) != 0 || ::setuid(user.uid) != 0) {
    give_up(report, SpawnStage::kUser, errno);
  }
  if (plan.privileged && !raise_all_capabilities()) give_up(report, SpawnStage::kSetup, errno);
  if (::chdir(plan.folder.c_str()) != 0) give_up(report, SpawnStage::kFolder, errno);

  // Sockets that Asio makes are not close-on-exec. The report is already.
  ::syscall(SYS_close_range, 3U, ~0U, CLOSE_RANGE_CLOEXEC);
  const auto argv = pointers(plan.argv);
  auto variables = plan.environment;
  if (plan.listening >= 0) hand_down_socket(plan.listening, variables, report);
  const auto environment = pointers(variables);
  int error_number = ENOENT;
  for (const auto& candidate : plan.candidates) {
    ::execve(candidate.c_str(), argv.data(), environment.data());
    // As execvp(3): go on past what is not there, remember what may not be run.
    if (errno == EACCES || (errno != ENOENT && errno != ENOTDIR)) error_number = errno;
    if (errno != EACCES && errno != ENOENT && errno != ENOTDIR) break;
  }
  give_up(report, SpawnStage::kProgram, error_number);
}

}  // namespace

Result<Spawned> spawn(const SpawnPlan& plan) {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC | O_NONBLOCK) != 0) return fail_errno("making a pipe", errno);
  UniqueFd read_end(ends[0]);
  const UniqueFd write_end(ends[1]);

  clone_args arguments{};
  arguments.exit_signal = SIGCHLD;
  if (plan.cgroup >= 0) {
    arguments.flags = CLONE_INTO_CGROUP;
    arguments.cgroup = static_cast<__u64>(plan.cgroup);
  }
  const long pid = ::syscall(SYS_clone3, &arguments, sizeof arguments);
  if (pid < 0) return fail_errno("starting a process", errno);
  if (pid == 0) run_child(plan, write_end.get());
  return Spawned{static_cast<pid_t>(pid), std::move(read_end)};
}

}  // namespace sbx::guest
