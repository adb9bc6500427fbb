// Command builds a child process; Subprocess owns it.
//
//   auto child = Command({"/usr/bin/qemu-system-x86_64", "-version"}).stdout_to(log.get()).start();
//
// Signals are unblocked and reset in the child; every fd but 0, 1, 2 and those kept is closed. fork(2) + execve(2);
// start() may be called from a process with threads. Descriptor numbers are kept as they are in the child: `keep_fd(7)`
// is fd 7 there too, so a command line may name it.
#pragma once

#include <sys/types.h>

#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"

namespace sbx {

struct ExitStatus {
  int code = 0;    // as WEXITSTATUS; meaningless if signal != 0
  int signal = 0;  // as WTERMSIG
  bool success() const { return code == 0 && signal == 0; }
  std::string describe() const;  // "exit status 3", "signal 9 (Killed)"
};

// A child process. Destroying a Subprocess that still runs kills it (SIGKILL) and reaps it.
class Subprocess {
 public:
  Subprocess() = default;
  Subprocess(pid_t pid, UniqueFd pidfd) : pid_(pid), pidfd_(std::move(pidfd)) {}
  Subprocess(Subprocess&& other) noexcept;
  Subprocess& operator=(Subprocess&& other) noexcept;
  ~Subprocess();

  pid_t pid() const { return pid_; }
  // Readable (poll, asio) once the child has ended; owned by this object.
  int pidfd() const { return pidfd_.get(); }
  bool running() const { return pid_ > 0; }
  void kill(int signal) const;
  // Blocks until the child ends, and reaps it.
  Result<ExitStatus> wait();
  // Gives the child up: it is neither killed nor reaped here any more.
  pid_t release();

 private:
  pid_t pid_ = -1;
  UniqueFd pidfd_;
};

class Command {
 public:
  explicit Command(std::vector<std::string> argv) : argv_(std::move(argv)) {}

  Command& add(std::string argument);
  Command& add(std::vector<std::string> arguments);
  Command& keep_fd(int fd);
  Command& stdin_from(int fd);
  Command& stdout_to(int fd);
  Command& stderr_to(int fd);
  Command& working_folder(std::string path);
  // The whole environment ("K=V"); without this call the parent's.
  Command& environment(std::vector<std::string> environment);
  // SIGKILL when the *thread* that called start() ends (prctl PR_SET_PDEATHSIG).
  Command& die_with_parent();
  // A PID namespace of which the child is the first process: when it ends, however that happens, the kernel ends
  // whatever it has started. Without root in a user namespace of its own, too; where the system allows none, without
  // either. The child can be ended from outside by SIGKILL only.
  Command& own_pid_namespace();
  // setsid(2): out of the terminal's and the parent's reach.
  Command& new_session();

  const std::vector<std::string>& argv() const { return argv_; }
  // Fails with kNotFound if the program cannot be executed. stdin, stdout and stderr default to /dev/null, /dev/null
  // and the parent's stderr.
  Result<Subprocess> start() const;
  // start(), wait, and the whole of stdout (and stderr in the error); a status other than 0 is an error.
  Result<std::string> output() const;

 private:
  std::vector<std::string> argv_;
  std::vector<int> kept_;
  std::optional<std::vector<std::string>> environment_;
  std::string working_folder_;
  int stdin_ = -1;
  int stdout_ = -1;
  int stderr_ = -1;
  bool die_with_parent_ = false;
  bool own_pid_namespace_ = false;
  bool new_session_ = false;
};

}  // namespace sbx
