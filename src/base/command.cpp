#include "base/command.h"

#include <fcntl.h>
#include <linux/close_range.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/file.h"

namespace sbx {

std::string ExitStatus::describe() const {
  if (signal != 0) return "signal " + std::to_string(signal) + " (" + ::strsignal(signal) + ")";
  return "exit status " + std::to_string(code);
}

Subprocess::Subprocess(Subprocess&& other) noexcept
    : pid_(std::exchange(other.pid_, -1)), pidfd_(std::move(other.pidfd_)) {}

Subprocess& Subprocess::operator=(Subprocess&& other) noexcept {
  std::swap(pid_, other.pid_);
  std::swap(pidfd_, other.pidfd_);
  return *this;
}

Subprocess::~Subprocess() {
  if (pid_ <= 0) return;
  kill(SIGKILL);
  (void)wait();
}

void Subprocess::kill(int signal) const {
  if (pidfd_.valid()) ::syscall(SYS_pidfd_send_signal, pidfd_.get(), signal, nullptr, 0);
}

Result<ExitStatus> Subprocess::wait() {
  if (pid_ <= 0) return fail(ErrorCode::kInternal, "there is no child process to wait for");
  int status = 0;
  pid_t got = 0;
  do {
    got = ::waitpid(pid_, &status, 0);
  } while (got < 0 && errno == EINTR);
  const int error_number = errno;
  pid_ = -1;
  if (got < 0) return fail_errno("waiting for a child process", error_number);
  return ExitStatus{WIFEXITED(status) ? WEXITSTATUS(status) : 0, WIFSIGNALED(status) ? WTERMSIG(status) : 0};
}

pid_t Subprocess::release() {
  pidfd_.reset();
  return std::exchange(pid_, -1);
}

Command& Command::add(std::string argument) {
  argv_.push_back(std::move(argument));
  return *this;
}
Command& Command::add(std::vector<std::string> arguments) {
  for (auto& argument : arguments) argv_.push_back(std::move(argument));
  return *this;
}
Command& Command::keep_fd(int fd) {
  kept_.push_back(fd);
  return *this;
}
Command& Command::stdin_from(int fd) {
  stdin_ = fd;
  return *this;
}
Command& Command::stdout_to(int fd) {
  stdout_ = fd;
  return *this;
}
Command& Command::stderr_to(int fd) {
  stderr_ = fd;
  return *this;
}
Command& Command::working_folder(std::string path) {
  working_folder_ = std::move(path);
  return *this;
}
Command& Command::environment(std::vector<std::string> environment) {
  environment_ = std::move(environment);
  return *this;
}
Command& Command::die_with_parent() {
  die_with_parent_ = true;
  return *this;
}
Command& Command::own_pid_namespace() {
  own_pid_namespace_ = true;
  return *this;
}
Command& Command::new_session() {
  new_session_ = true;
  return *this;
}

namespace {

// Everything the child needs, prepared before fork: after it only async-signal-safe calls are made.
struct ChildPlan {
  std::vector<char*> argv;
  std::vector<char*> environment;
  std::vector<int> kept;  // sorted
  const char* working_folder = nullptr;
  int standard[3] = {-1, -1, -1};
  int report = -1;      // errno of a failure before exec
  pid_t parent = -1;    // as /proc numbers it if own_pid_namespace, else as getppid(2) does
  std::string uid_map;  // of the new user namespace; empty: there is none
  std::string gid_map;
  bool die_with_parent = false;
  bool new_session = false;
  bool own_pid_namespace = false;
};

[[noreturn]] void give_up(const ChildPlan& plan) {
  const int error_number = errno;
  if (::write(plan.report, &error_number, sizeof error_number) < 0) ::_exit(126);
  ::_exit(127);
}

void close_all_but(const std::vector<int>& kept, int report) {
  unsigned next = 3;
  for (const int fd : kept) {
    const auto keep = static_cast<unsigned>(fd);
    if (keep < next) continue;
    if (keep > next) ::syscall(SYS_close_range, next, keep - 1, CLOSE_RANGE_CLOEXEC);
    next = keep + 1;
  }
  ::syscall(SYS_close_range, next, ~0U, CLOSE_RANGE_CLOEXEC);
  ::fcntl(report, F_SETFD, FD_CLOEXEC);
}

bool put(const char* path, std::string_view text) {
  const int fd = ::open(path, O_WRONLY | O_CLOEXEC);
  const bool done = fd >= 0 && ::write(fd, text.data(), text.size()) == static_cast<ssize_t>(text.size());
  if (fd >= 0) ::close(fd);
  return done;
}

// The same uid and gid as outside: all that a user may map by himself (user_namespaces(7)).
bool map_ourselves(const ChildPlan& plan) {
  return put("/proc/self/setgroups", "deny") && put("/proc/self/uid_map", plan.uid_map) &&
         put("/proc/self/gid_map", plan.gid_map);
}

// Whose death we would be told of from now on. A parent that is only just dying has already left us to somebody else
// while a pidfd of it still says that it lives: all of its threads have to end for that. In a PID namespace of our own
// getppid(2) knows nobody; /proc, mounted for a namespace around ours, does (the fourth field of proc_pid_stat(5); our
// name stands in brackets before it).
pid_t parent_now(const ChildPlan& plan) {
  if (!plan.own_pid_namespace) return ::getppid();
  char text[512];
  const int fd = ::open("/proc/self/stat", O_RDONLY | O_CLOEXEC);
  const ssize_t size = fd < 0 ? -1 : ::read(fd, text, sizeof text - 1);
  if (fd >= 0) ::close(fd);
  if (size <= 0) return -1;
  text[size] = '\0';
  const char* after = ::strrchr(text, ')');  // ") S PPID ..."
  pid_t parent = 0;
  for (after = after == nullptr ? "" : after + 4; *after >= '0' && *after <= '9'; ++after)
    parent = parent * 10 + *after - '0';
  return parent;
}

[[noreturn]] void run_child(const ChildPlan& plan) {
  sigset_t none;
  ::sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  for (int s = 1; s < 32; ++s) ::signal(s, SIG_DFL);
  if (plan.die_with_parent) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (const pid_t parent = parent_now(plan); parent < 0)
      give_up(plan);
    else if (parent != plan.parent)
      ::_exit(127);
  }
  if (!plan.uid_map.empty() && !map_ourselves(plan)) give_up(plan);
  if (plan.new_session) ::setsid();
  // First out of the way of 0, 1 and 2, then into place: a source may itself be one of them.
  int moved[3];
  for (int i = 0; i < 3; ++i) {
    moved[i] = ::fcntl(plan.standard[i], F_DUPFD_CLOEXEC, 3);
    if (moved[i] < 0) give_up(plan);
  }
  for (int i = 0; i < 3; ++i) {
    if (::dup2(moved[i], i) < 0) give_up(plan);
  }
  for (const int fd : plan.kept) {
    if (::fcntl(fd, F_SETFD, 0) < 0) give_up(plan);
  }
  close_all_but(plan.kept, plan.report);
  if (plan.working_folder != nullptr && ::chdir(plan.working_folder) != 0) give_up(plan);
  ::execvpe(plan.argv[0], plan.argv.data(), plan.environment.data());
  give_up(plan);
}

// fork(2) with namespaces. The C library does not know of this one, but all that the child does is system calls.
pid_t fork_into_namespace(ChildPlan& plan) {
  long flags = SIGCHLD | CLONE_NEWPID;
  if (const auto uid = ::geteuid(); uid != 0) {
    flags |= CLONE_NEWUSER;
    plan.uid_map = std::to_string(uid) + " " + std::to_string(uid) + " 1";
    plan.gid_map = std::to_string(::getegid()) + " " + std::to_string(::getegid()) + " 1";
  }
  const long pid = ::syscall(SYS_clone, flags, nullptr, nullptr, nullptr, nullptr);
  if (pid >= 0 || (errno != EPERM && errno != ENOSPC && errno != EINVAL)) return static_cast<pid_t>(pid);
  plan.uid_map.clear();
  return ::fork();
}

// Our own number in the namespace that /proc was mounted for.
pid_t pid_in_proc() {
  char text[32] = {};
  return ::readlink("/proc/self", text, sizeof text - 1) > 0 ? static_cast<pid_t>(::strtol(text, nullptr, 10)) : -1;
}

std::vector<char*> pointers(const std::vector<std::string>& strings) {
  std::vector<char*> result;
  result.reserve(strings.size() + 1);
  for (const auto& s : strings) result.push_back(const_cast<char*>(s.c_str()));
  result.push_back(nullptr);
  return result;
}

std::vector<std::string> current_environment() {
  std::vector<std::string> result;
  for (char** entry = ::environ; *entry != nullptr; ++entry) result.emplace_back(*entry);
  return result;
}

}  // namespace

Result<Subprocess> Command::start() const {
  if (argv_.empty()) return fail(ErrorCode::kInternal, "a command needs a program");
  auto null_read = SBX_TRY(open_file("/dev/null", O_RDWR), "starting " + argv_[0]);
  const auto environment = environment_ ? *environment_ : current_environment();
  int report[2];
  if (::pipe2(report, O_CLOEXEC) != 0) return fail_errno("making a pipe", errno);
  UniqueFd report_read(report[0]);
  UniqueFd report_write(report[1]);

  ChildPlan plan;
  plan.argv = pointers(argv_);
  plan.environment = pointers(environment);
  plan.kept = kept_;
  std::sort(plan.kept.begin(), plan.kept.end());
  plan.working_folder = working_folder_.empty() ? nullptr : working_folder_.c_str();
  plan.standard[0] = stdin_ >= 0 ? stdin_ : null_read.get();
  plan.standard[1] = stdout_ >= 0 ? stdout_ : null_read.get();
  plan.standard[2] = stderr_ >= 0 ? stderr_ : STDERR_FILENO;
  plan.report = report_write.get();
  plan.own_pid_namespace = own_pid_namespace_;
  plan.parent = own_pid_namespace_ ? pid_in_proc() : ::getpid();
  plan.die_with_parent = die_with_parent_;
  plan.new_session = new_session_;

  const pid_t pid = own_pid_namespace_ ? fork_into_namespace(plan) : ::fork();
  if (pid < 0) return fail_errno("fork", errno);
  if (pid == 0) run_child(plan);
  report_write.reset();
  Subprocess child(pid, UniqueFd(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0))));
  int error_number = 0;
  ssize_t n = 0;
  do {
    n = ::read(report_read.get(), &error_number, sizeof error_number);
  } while (n < 0 && errno == EINTR);
  if (n == sizeof error_number) {
    (void)child.wait();
    return fail_errno("starting " + argv_[0], error_number);
  }
  return child;
}

Result<std::string> Command::output() const {
  auto folder = SBX_TRY(TemporaryFolder::make("sbx-command"), "collecting output");
  auto out = SBX_TRY(open_file(folder.path() / "out", O_CREAT | O_RDWR), "collecting output");
  auto err = SBX_TRY(open_file(folder.path() / "err", O_CREAT | O_RDWR), "collecting output");
  Command copy = *this;
  auto child = SBX_TRY(copy.stdout_to(out.get()).stderr_to(err.get()).start(), "running " + argv_[0]);
  const auto status = SBX_TRY(child.wait(), "running " + argv_[0]);
  if (!status.success()) {
    auto text = read_file(folder.path() / "err").value_or("");
    if (text.size() > 2000) text = text.substr(text.size() - 2000);
    return fail(ErrorCode::kInternal, argv_[0] + " ended with " + status.describe() + ": " + text);
  }
  return read_file(folder.path() / "out");
}

}  // namespace sbx
