#include "guest/exec_session.h"

#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <cerrno>

#include "base/file.h"

namespace sbx::guest {
namespace {

using namespace std::chrono_literals;
using boost::asio::co_spawn;
using boost::asio::detached;

constexpr std::size_t kMaxHead = 1U << 20U;
constexpr std::size_t kPiece = 32U << 10U;
constexpr auto kOutputGrace = 200ms;  // for grandchildren that hold the pipes
constexpr auto kHangupGrace = 500ms;  // between SIGHUP and SIGKILL
constexpr auto kTidyUpDelay = 5ms;    // by then the answer is on its way
constexpr gid_t kTtyGroup = 5;        // Debian's group tty, as devpts is mounted

// The 4-byte length and the JSON; `rest` receives the bytes of stdin that came along.
Awaitable<Result<ExecHead>> read_head(wire::Http2Stream& stream, std::string& rest) {
  std::string data;
  std::size_t wanted = 4;
  char buffer[4096];
  for (bool sized = false;;) {
    if (!sized && data.size() >= 4) {
      sized = true;
      for (std::size_t i = 0, size = 0; i < 4; ++i) {
        size = size << 8U | static_cast<unsigned char>(data[i]);
        wanted = 4 + size;
      }
      if (wanted > kMaxHead) co_return fail(ErrorCode::kInvalid, "the exec head is over 1 MiB");
    }
    if (sized && data.size() >= wanted) break;
    auto read = co_await stream.read_some(buffer);
    if (!read) co_return std::unexpected(std::move(read).error());
    if (*read == 0) co_return fail(ErrorCode::kInvalid, "the exec head is cut short");
    data.append(buffer, *read);
  }
  rest = data.substr(wanted);
  co_return parse_exec_head(std::string_view(data).substr(4, wanted - 4));
}

Result<void> make_pipe(UniqueFd& read_end, UniqueFd& write_end) {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) return fail_errno("making a pipe", errno);
  read_end.reset(ends[0]);
  write_end.reset(ends[1]);
  return {};
}

}  // namespace

Awaitable<void> serve_exec(Guest& guest, std::shared_ptr<wire::Http2Stream> stream) {
  std::string input;
  auto head = co_await read_head(*stream, input);
  if (!head) {
    co_await wire::send_error(*stream, head.error());
    co_return;
  }
  Error refusal{ErrorCode::kConflict, {}, {}};
  if (guest.cgroups.frozen()) refusal.message = "the sandbox is frozen; thaw it first";
  if (guest.execs.contains(head->id)) refusal.message = "there is an exec " + head->id + " already";
  if (!refusal.message.empty()) {
    co_await wire::send_error(*stream, refusal);
    co_return;
  }
  const std::string id = head->id;
  const auto seen = head->files_seen;
  const auto session = std::make_shared<ExecSession>(guest, stream, *std::move(head), std::move(input));
  guest.execs[id] = session;
  co_await guest.workspaces.notified(seen);
  co_await session->run();
  guest.execs.erase(id);
}

ExecSession::ExecSession(Guest& guest, std::shared_ptr<wire::Http2Stream> stream, ExecHead head, std::string input)
    : guest_(guest),
      stream_(std::move(stream)),
      head_(std::move(head)),
      input_(std::move(input)),
      sink_(guest.executor),
      stdout_(guest.executor, wire::StdStream::kStdout),
      stderr_(guest.executor, wire::StdStream::kStderr),
      writing_(guest.executor),
      outputs_done_(guest.executor) {}

Awaitable<void> ExecSession::run() {
  const auto failure = co_await start();
  if (!stream_->respond(200, {{"content-type", "application/vnd.docker.multiplexed-stream"}}, false) && !child_) {
    co_return;
  }
  if (failure) {
    co_await send_status(exec_status_json(*failure));
    leave_group();
    co_return;
  }
  const auto self = shared_from_this();
  open_outputs_ = head_.tty ? 1 : 2;
  co_spawn(guest_.executor, pump_input(self), detached);
  co_spawn(guest_.executor, pump_output(self, stdout_), detached);
  if (!head_.tty) co_spawn(guest_.executor, pump_output(self, stderr_), detached);
  co_spawn(guest_.executor, watch_stream(self), detached);

  co_await child_->ended.wait();
  co_await drain_outputs();
  const bool out_of_memory = guest_.cgroups.out_of_memory(group_);
  co_await send_status(exec_status_json(child_->wait_status, out_of_memory));
  leave_group();
}

// group_ stays: watch_stream() may yet end what has outlived the command.
void ExecSession::leave_group() { co_spawn(guest_.executor, tidy_up(guest_, group_), detached); }

// After the answer, so that nobody waits for it.
Awaitable<void> ExecSession::tidy_up(Guest& guest, std::string group) {
  co_await sleep_for(guest.executor, kTidyUpDelay);
  if (!group.empty()) guest.cgroups.remove_when_empty(group);
  guest.cgroups.keep_spare();
}

Awaitable<std::optional<ExecFailure>> ExecSession::start() {
  const auto user = find_user(head_.user);
  if (!user) co_return ExecFailure{127, user.error().message};
  const auto system = read_file("/etc/environment", 64U << 10U);

  SpawnPlan plan;
  plan.argv = head_.argv;
  plan.environment =
      build_environment(*user, head_.tty, system ? *system : std::string(), guest_.environment, head_.env);
  plan.candidates = program_candidates(head_.argv.front(), value_of(plan.environment, "PATH"));
  plan.user = *user;
  plan.terminal = head_.tty;
  plan.privileged = head_.privileged;
  plan.folder = head_.cwd.empty() ? guest_.workspaces.primary_folder() : head_.cwd;
  if (plan.folder.empty()) plan.folder = ::access(user->home.c_str(), X_OK) == 0 ? user->home : "/";

  UniqueFd child_ends[3];
  auto opened = head_.tty ? open_terminal(plan, child_ends) : open_pipes(plan, child_ends);
  if (!opened) co_return ExecFailure{126, opened.error().describe()};
  const auto group = guest_.cgroups.take();
  if (!group) co_return ExecFailure{126, group.error().describe()};
  group_ = group->name;
  plan.cgroup = group->fd.get();
  auto spawned = spawn(plan);
  if (!spawned) co_return ExecFailure{126, spawned.error().describe()};
  child_ = guest_.reaper.adopt(spawned->pid);
  for (auto& end : child_ends) end.reset();

  Descriptor report(guest_.executor, spawned->report.release());
  SpawnReport said{};
  const auto [error, size] = co_await report.async_read_some(boost::asio::buffer(&said, sizeof said), kNoThrow);
  if (error || size != sizeof said) co_return std::nullopt;
  co_await child_->ended.wait();
  child_.reset();
  co_return describe_failure(said.stage, said.error_number, head_, plan.folder);
}

Result<void> ExecSession::open_pipes(SpawnPlan& plan, UniqueFd (&child_ends)[3]) {
  UniqueFd ours[3];
  SBX_CHECK(make_pipe(child_ends[0], ours[0]), "opening stdin");
  SBX_CHECK(make_pipe(ours[1], child_ends[1]), "opening stdout");
  SBX_CHECK(make_pipe(ours[2], child_ends[2]), "opening stderr");
  for (int i = 0; i < 3; ++i) {
    ::fcntl(ours[i].get(), F_SETFL, ::fcntl(ours[i].get(), F_GETFL) | O_NONBLOCK);
    plan.standard[i] = child_ends[i].get();
    // The user may reopen /proc/self/fd/N, as with Docker.
    if (::fchown(child_ends[i].get(), plan.user.uid, plan.user.gid) != 0) continue;
  }
  sink_.assign(ours[0].release());
  stdout_.source.assign(ours[1].release());
  stderr_.source.assign(ours[2].release());
  return {};
}

Result<void> ExecSession::open_terminal(SpawnPlan& plan, UniqueFd (&child_ends)[3]) {
  UniqueFd master(::open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK));
  const int unlocked = 0;
  if (!master.valid() || ::ioctl(master.get(), TIOCSPTLCK, &unlocked) != 0) return fail_errno("opening a pty", errno);
  const winsize size{head_.rows, head_.cols, 0, 0};
  ::ioctl(master.get(), TIOCSWINSZ, &size);
  child_ends[0].reset(::ioctl(master.get(), TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC));
  if (!child_ends[0].valid()) return fail_errno("opening a pty's other end", errno);
  if (::fchown(child_ends[0].get(), plan.user.uid, kTtyGroup) != 0) return fail_errno("owning the pty", errno);
  ::fchmod(child_ends[0].get(), 0620);
  for (int& standard : plan.standard) standard = child_ends[0].get();
  // Two descriptors, so that reading and writing have each a reactor entry of their own to cancel.
  UniqueFd second(::fcntl(master.get(), F_DUPFD_CLOEXEC, 3));
  if (!second.valid()) return fail_errno("duplicating a pty", errno);
  sink_.assign(second.release());
  stdout_.source.assign(master.release());
  return {};
}

Awaitable<void> ExecSession::pump_input(Self self) {
  bool wanted = true;  // false once the command has closed its stdin: drain, or the peer's window would never open
  std::string piece = std::move(self->input_);
  std::vector<char> buffer(kPiece);
  for (;;) {
    for (std::string_view rest = piece; wanted && !rest.empty();) {
      const auto [error, size] =
          co_await self->sink_.async_write_some(boost::asio::buffer(rest.data(), rest.size()), kNoThrow);
      if (error) wanted = false;
      rest.remove_prefix(size);
    }
    const auto read = co_await self->stream_->read_some(buffer);
    if (!read || *read == 0) break;
    piece.assign(buffer.data(), *read);
  }
  boost::system::error_code ignored;
  if (!self->head_.tty) self->sink_.close(ignored);
}

Awaitable<void> ExecSession::pump_output(Self self, Output& output) {
  std::vector<char> buffer(kPiece);
  bool ended = false;
  for (;;) {
    std::size_t room = buffer.size();
    if (output.grace_over) room = std::min(room, output.budget);
    if (room == 0) break;
    const ssize_t size = ::read(output.source.native_handle(), buffer.data(), room);
    if (size < 0 && errno == EINTR) continue;
    if (size < 0 && errno == EAGAIN) {
      if (output.grace_over) break;
      co_await output.source.async_wait(Descriptor::wait_read, kNoThrow);
      continue;
    }
    if (size <= 0) {  // EIO: the last one has closed the terminal
      ended = true;
      break;
    }
    if (output.grace_over) output.budget -= static_cast<std::size_t>(size);
    const auto frame = wire::stdcopy_frame(output.stream, {buffer.data(), static_cast<std::size_t>(size)});
    const auto turn = co_await self->writing_.lock();
    const auto written = co_await self->stream_->write(frame);
    if (!written) break;
  }
  boost::system::error_code ignored;
  if (ended && !self->head_.tty) output.source.close(ignored);
  if (!ended) co_spawn(self->guest_.executor, discard_output(self, output), detached);
  if (--self->open_outputs_ == 0) self->outputs_done_.set();
}

Awaitable<void> ExecSession::discard_output([[maybe_unused]] Self self, Output& output) {
  std::vector<char> buffer(4096);
  for (;;) {
    const auto [error, size] = co_await output.source.async_read_some(boost::asio::buffer(buffer), kNoThrow);
    if (error || size == 0) break;
  }
  boost::system::error_code ignored;
  output.source.close(ignored);
}

Awaitable<void> ExecSession::drain_outputs() {
  const bool done = co_await outputs_done_.wait_for(kOutputGrace);
  if (done) co_return;
  for (Output* output : {&stdout_, &stderr_}) {
    if (!output->source.is_open()) continue;
    int waiting = 0;
    ::ioctl(output->source.native_handle(), FIONREAD, &waiting);
    output->budget = static_cast<std::size_t>(waiting);
    output->grace_over = true;
    output->source.cancel();
  }
  co_await outputs_done_.wait();
}

Awaitable<void> ExecSession::send_status(std::string status) {
  const auto turn = co_await writing_.lock();
  const auto written = co_await stream_->write(wire::stdcopy_frame(wire::StdStream::kStatus, status));
  if (written) (void)co_await stream_->finish();
}

Awaitable<void> ExecSession::watch_stream(Self self) {
  co_await self->stream_->closed();
  if (self->child_->ended.is_set()) co_return;
  self->guest_.cgroups.signal(self->group_, SIGHUP);
  self->guest_.cgroups.signal(self->group_, SIGCONT);
  co_await sleep_for(self->guest_.executor, kHangupGrace);
  self->guest_.cgroups.kill(self->group_);
}

Result<void> ExecSession::signal(int number) {
  if (number < 1 || number >= NSIG) return fail(ErrorCode::kInvalid, "no such signal: " + std::to_string(number));
  if (!child_ || child_->ended.is_set()) return fail(ErrorCode::kConflict, "the command is not running");
  if (::kill(-child_->pid, number) != 0) return fail_errno("sending a signal", errno);
  return {};
}

Result<void> ExecSession::resize(unsigned short rows, unsigned short cols) {
  if (!head_.tty || !stdout_.source.is_open()) return fail(ErrorCode::kConflict, "the exec has no terminal");
  const winsize size{rows, cols, 0, 0};
  if (::ioctl(stdout_.source.native_handle(), TIOCSWINSZ, &size) != 0) return fail_errno("resizing", errno);
  return {};
}

}  // namespace sbx::guest
