#include "sandbox/keeper_process.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <boost/asio/buffer.hpp>
#include <nlohmann/json.hpp>

#include "base/command.h"
#include "base/file.h"
#include "sandbox/json_fields.h"

namespace sbx::sandbox {
namespace asio = boost::asio;
namespace {

constexpr std::size_t kLongestLine = 64U << 10U;
constexpr const char* kLock = "keeper.lock";
// A keeper that has not even written its pid by then is no keeper.
constexpr auto kPidDeadline = std::chrono::seconds(10);

// Locked from before the fork: the lock belongs to the open file, which the keeper inherits.
Result<UniqueFd> make_lock(const std::filesystem::path& runtime_folder) {
  const auto path = runtime_folder / kLock;
  auto lock = SBX_TRY(open_file(path, O_RDWR | O_CREAT | O_EXCL, 0600), "locking the runtime folder");
  if (::flock(lock.get(), LOCK_EX | LOCK_NB) != 0) return fail_errno("locking " + path.native(), errno);
  return lock;
}

bool is_locked(int fd) {
  if (::flock(fd, LOCK_EX | LOCK_NB) == 0) {
    ::flock(fd, LOCK_UN);
    return false;
  }
  return true;
}

std::string end_of_log(const std::filesystem::path& log) {
  auto text = read_file(log);
  if (!text || text->empty()) return "it wrote nothing";
  constexpr std::size_t kShown = 600;
  return text->size() > kShown ? text->substr(text->size() - kShown) : *text;
}

}  // namespace

Result<KeeperProcess> spawn_keeper(const std::filesystem::path& program, const nlohmann::json& spec, int gateway_fd,
                                   const std::filesystem::path& log) {
  UniqueFd memory(::memfd_create("launch-spec", MFD_CLOEXEC));
  if (!memory.valid()) return fail_errno("making the launch specification", errno);
  SBX_CHECK(write_all(memory.get(), dump(spec)), "writing the launch specification");
  if (::lseek(memory.get(), 0, SEEK_SET) != 0) return fail_errno("rewinding the launch specification", errno);
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) return fail_errno("making a pipe", errno);
  KeeperProcess keeper;
  keeper.output.reset(ends[0]);
  UniqueFd write_end(ends[1]);
  auto log_file = SBX_TRY(open_file(log, O_WRONLY | O_CREAT | O_APPEND, 0600), "opening the keeper's log");
  const std::string runtime_folder = text_field(spec, "runtime_folder");
  const auto lock = SBX_TRY(make_lock(runtime_folder), "starting the keeper");
  Command command({program.native(), "--spec-fd", std::to_string(memory.get())});
  command.keep_fd(lock.get());
  command.keep_fd(memory.get()).stdout_to(write_end.get()).stderr_to(log_file.get()).new_session();
  if (gateway_fd >= 0) command.keep_fd(gateway_fd);
  auto child = SBX_TRY(command.start(), "starting " + program.native());
  keeper.pid = child.pid();
  keeper.start_time = process_start_time(keeper.pid);
  keeper.pidfd.reset(static_cast<int>(::syscall(SYS_pidfd_open, keeper.pid, 0)));
  if (!keeper.pidfd.valid()) return fail_errno("pidfd_open", errno);
  child.release();  // lives on without us; the store knows it, and whoever holds the pidfd reaps it
  return keeper;
}

Awaitable<Result<void>> end_unrecorded_keeper(std::filesystem::path runtime_folder) {
  const auto executor = co_await asio::this_coro::executor;
  const auto lock = open_file(runtime_folder / kLock, O_RDWR);
  if (!lock) co_return Result<void>{};
  const auto deadline = std::chrono::steady_clock::now() + kPidDeadline;
  while (is_locked(lock->get())) {
    char text[16] = {};
    const bool written = ::pread(lock->get(), text, sizeof text - 1, 0) > 0;
    UniqueFd process(written ? static_cast<int>(::syscall(SYS_pidfd_open, std::atoi(text), 0)) : -1);
    // Locked still: so this is the one who wrote the pid, and no later process of that number.
    if (process.valid() && is_locked(lock->get())) {
      kill_process(process.get(), SIGKILL);
      asio::posix::stream_descriptor ended(executor, process.release());
      boost::system::error_code ignored;
      co_await ended.async_wait(asio::posix::stream_descriptor::wait_read,
                                asio::redirect_error(asio::use_awaitable, ignored));
    }
    if (std::chrono::steady_clock::now() > deadline)
      co_return fail(ErrorCode::kTimeout, "a keeper holds " + runtime_folder.native() + " and does not end");
    asio::steady_timer moment(executor, std::chrono::milliseconds(20));  // a lock tells nobody when it is released
    boost::system::error_code ignored;
    co_await moment.async_wait(asio::redirect_error(asio::use_awaitable, ignored));
  }
  co_return Result<void>{};
}

Awaitable<Result<void>> wait_until_ready(UniqueFd output, std::chrono::milliseconds deadline,
                                         std::filesystem::path log) {
  const auto executor = co_await asio::this_coro::executor;
  auto pipe = std::make_shared<asio::posix::stream_descriptor>(executor, output.release());
  asio::steady_timer timer(executor, deadline);
  auto late = std::make_shared<bool>(false);
  timer.async_wait([pipe, late](boost::system::error_code error) {
    if (error) return;
    *late = true;
    pipe->cancel();
  });
  std::string line;
  char buffer[4096];
  while (line.find('\n') == std::string::npos && line.size() < kLongestLine) {
    boost::system::error_code error;
    const std::size_t got =
        co_await pipe->async_read_some(asio::buffer(buffer), asio::redirect_error(asio::use_awaitable, error));
    if (*late) {
      const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(deadline).count();
      co_return fail(ErrorCode::kTimeout,
                     "the sandbox was not usable after " + std::to_string(seconds) + " s; see " + log.native());
    }
    if (error)
      co_return fail(ErrorCode::kInternal,
                     "the sandbox's keeper ended before the sandbox was usable: " + end_of_log(log));
    line.append(buffer, got);
  }
  timer.cancel();
  const auto answer = nlohmann::json::parse(line.substr(0, line.find('\n')), nullptr, false);
  if (answer.is_object() && answer.contains("error")) {
    const auto& error = answer["error"];
    co_return fail(error_code_from(text_field(error, "code")),
                   text_field(error, "message", "the keeper failed without a message"));
  }
  if (!bool_field(answer, "ready"))
    co_return fail(ErrorCode::kInternal, "the keeper answered with something else than readiness");
  co_return Result<void>{};
}

std::int64_t process_start_time(pid_t pid) {
  auto stat = read_file("/proc/" + std::to_string(pid) + "/stat", 4096);
  if (!stat) return 0;
  // The second field is the program's name in parentheses, which may hold anything; fields count again after it.
  std::size_t at = stat->rfind(')');
  if (at == std::string::npos) return 0;
  for (int field = 2; field < 22; ++field) {
    at = stat->find(' ', at + 1);
    if (at == std::string::npos) return 0;
  }
  return std::strtoll(stat->c_str() + at + 1, nullptr, 10);
}

Result<UniqueFd> open_process(pid_t pid, std::int64_t start_time) {
  if (pid <= 0) return fail(ErrorCode::kNotFound, "no process is known");
  UniqueFd fd(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
  if (!fd.valid()) return fail(ErrorCode::kNotFound, "process " + std::to_string(pid) + " is gone");
  // Checked after opening: the pidfd pins whatever has the pid now.
  if (process_start_time(pid) != start_time)
    return fail(ErrorCode::kNotFound, "process " + std::to_string(pid) + " is another one now");
  return fd;
}

void kill_process(int pidfd, int signal) { ::syscall(SYS_pidfd_send_signal, pidfd, signal, nullptr, 0); }

void reap_keeper(pid_t pid) {
  siginfo_t info{};
  ::waitid(P_PID, static_cast<id_t>(pid), &info, WEXITED | WNOHANG);
}

}  // namespace sbx::sandbox
