#include "keeper/supervisor.h"

#include <fcntl.h>
#include <linux/sockios.h>
#include <poll.h>
#include <signal.h>
#include <spdlog/spdlog.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>

#include "base/file.h"
#include "keeper/files_server.h"
#include "keeper/machine_files.h"
#include "keeper/rfc3339.h"
#include "keeper/worker_jail.h"
#include "keeper/worker_spec.h"
#include "vm/jail.h"
#include "vm/template.h"

namespace sbx::keeper {

using namespace std::chrono_literals;
using nlohmann::json;

namespace {

constexpr auto kFilterDeadline = 120s;
// How long a QEMU that was asked to quit may flush its disk.
constexpr auto kQuitDeadline = 10s;
// How long the worker may take to tell attached clients that the machine has ended.
constexpr auto kFarewell = 5s;

std::string dump(const json& document) { return document.dump(-1, ' ', false, json::error_handler_t::replace); }

// Half of what fits: room for what must not be lost.
constexpr int kMostUnread = 64 << 10;

int unread_bytes(int socket) {
  int bytes = 0;
  return ::ioctl(socket, SIOCOUTQ, &bytes) == 0 ? bytes : 0;
}

// The end of a template's console, for an error that tells why a boot failed.
std::string console_tail(const LaunchSpec& spec) {
  const auto text = read_file(spec.runtime_folder / "console.log").value_or("");
  return text.size() > 1500 ? text.substr(text.size() - 1500) : text;
}

}  // namespace

void report_line(const json& line) {
  (void)write_all(STDOUT_FILENO, dump(line) + "\n");
  // Replaced and not closed: what were opened next as descriptor 1 would be the stdout of a child.
  if (const auto null = open_file("/dev/null", O_WRONLY)) ::dup2(null->get(), STDOUT_FILENO);
}

Supervisor::Supervisor(LaunchSpec spec)
    : spec_(std::move(spec)),
      servers_(spec_, {.wanted = [this] { return !stopping_ && !machine_end_; },
                       .changed = [this] { tell_processes(); },
                       .files_replaced = [this] { tell(Event::kFilesReplaced); }}),
      ports_([this](Event event, std::int32_t value, std::int32_t more, int fd) { tell(event, value, more, fd); },
             [this] { return unread_bytes(socket_.get()) < kMostUnread; }) {
  if (spec_.spare) leash_.reset(::fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3));
}

int Supervisor::run() {
  if (auto started = start(); !started) {
    report_failure(std::move(started.error()));
    return finish();
  }
  watch();
  return finish();
}

// QEMU first, since it takes longest; the worker comes up beside it.
Result<void> Supervisor::start() {
  if (spec_.mode != LaunchMode::kTemplate) {
    listener_ = SBX_TRY(vm::listen_in(spec_.runtime_folder, "keeper.sock"), "listening on keeper.sock");
    SBX_CHECK(ports_.listen(spec_.runtime_folder), "listening on ports.sock");
    SBX_CHECK(ensure_disk(spec_), "making the sandbox's disk");
  }
  if (spec_.mode == LaunchMode::kResume && !std::filesystem::exists(spec_.memory_image())) {
    spec_.mode = LaunchMode::kBoot;
  }
  SBX_CHECK(start_machine(), "starting the virtual machine");
  auto state = open_state();
  if (!state && spec_.mode == LaunchMode::kResume) {
    spdlog::warn("the memory image cannot be read, booting from the disk: {}", state.error().describe());
    spec_.mode = LaunchMode::kBoot;
    machine_.reset();
    SBX_CHECK(start_machine(), "starting the virtual machine");
    state = UniqueFd();
  }
  if (!state) return std::unexpected(std::move(state.error()));
  SBX_CHECK(start_worker(std::move(*state)), "starting sbx-keeper-worker");
  tell_processes();
  return {};
}

Result<void> Supervisor::start_machine() {
  vm::StartSpec start;
  if (spec_.mode == LaunchMode::kTemplate) {
    console_ = SBX_TRY(open_file(spec_.runtime_folder / "console.log", O_CREAT | O_WRONLY | O_TRUNC | O_APPEND),
                       "opening the console log");
    start = SBX_TRY(prepare_template(spec_, console_.get()), "preparing the template");
  } else if (spec_.mode == LaunchMode::kBoot) {
    SBX_CHECK(discard_memory_image(spec_), "discarding an old memory image");
    start = machine_start(spec_, vm::Purpose::kBoot);
  } else {
    start = machine_start(spec_, spec_.mode == LaunchMode::kResume ? memory_image_purpose(spec_) : vm::Purpose::kClone);
  }
  machine_end_.reset();
  machine_ = SBX_TRY(vm::MachineProcess::start(std::move(start)), "starting QEMU");
  return {};
}

// What the machine's state is loaded from, or (a template's) saved to; none for a boot.
Result<UniqueFd> Supervisor::open_state() {
  const vm::TemplatePaths paths(spec_.template_folder);
  switch (spec_.mode) {
    case LaunchMode::kClone:
      return open_file(paths.state(), O_RDONLY);
    case LaunchMode::kTemplate:
      return open_file(paths.state(), O_WRONLY | O_CREAT | O_EXCL);
    case LaunchMode::kResume:
      loading_ = SBX_TRY(vm::start_loading_memory(spec_.memory_image(), machine_->spec().uid), "loading memory");
      return std::move(loading_->stream);
    case LaunchMode::kBoot:
      break;
  }
  return UniqueFd();
}

Result<void> Supervisor::start_worker(UniqueFd state) {
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0) return fail_errno("socketpair", errno);
  socket_.reset(ends[0]);
  const UniqueFd theirs(ends[1]);
  WorkerSpec spec;
  spec.mode = spec_.mode;
  spec.sandbox_id = spec_.sandbox_id;
  spec.accelerator = spec_.accelerator;
  spec.qemu_major = machine_->spec().machine.qemu_major;
  spec.supervisor_pid = ::getpid();
  spec.spare = spec_.spare;
  spec.identity = spec_.identity;
  spec.workspaces = spec_.workspaces;
  const auto qmp = machine_->take_qmp();
  const auto document = SBX_TRY(write_worker_spec(spec), "writing the worker's spec");
  WorkerFds fds;
  fds.supervisor = theirs.get();
  fds.spec = document.get();
  fds.qmp = qmp.get();
  fds.listener = listener_.get();
  fds.state = state.get();
  const auto program = SBX_TRY(sibling_program("sbx-keeper-worker"), "starting the worker");
  worker_ = SBX_TRY(worker_command(program, fds, spec_.jail_uid(vm::JailRole::kWorker)).start(), "starting the worker");
  listener_.reset();
  return {};
}

Result<void> Supervisor::start_servers() {
  SBX_CHECK(servers_.start(), "starting");
  guest_runs_ = true;
  return {};
}

Result<void> Supervisor::rehearse_files() {
  std::error_code error;
  const auto folder = std::filesystem::canonical(spec_.runtime_folder, error) / "rehearsal";
  SBX_CHECK(make_folders(folder, 0700), "rehearsing the files");
  Workspace workspace;
  workspace.path = kRehearsedPath;
  workspace.source = folder;
  spec_.workspaces = {workspace};
  return servers_.start();
}

Result<void> Supervisor::end_rehearsal() {
  std::error_code ignored;
  std::filesystem::remove_all(spec_.workspaces.front().source, ignored);
  servers_.end();
  spec_.workspaces.clear();
  for (const auto& path : {spec_.journal(), spec_.journal_before()}) std::filesystem::remove(path, ignored);
  tell_processes();
  return {};
}

// Here and nowhere else does a spare become somebody's: by the daemon's word, which the worker cannot write.
Result<void> Supervisor::adopt() {
  auto adoption = SBX_TRY(take_adoption(spec_.runtime_folder), "adopting the spare");
  leash_.reset();
  spec_.spare = false;
  spec_.name = std::move(adoption.name);
  spec_.workspaces = std::move(adoption.workspaces);
  spec_.ssh_agent = adoption.ssh_agent;
  spec_.protection = std::move(adoption.protection);
  return servers_.start();
}

void Supervisor::watch() {
  while (!left_) {
    std::vector<pollfd> watched = {{socket_.get(), POLLIN, 0}, {worker_.pidfd(), POLLIN, 0}};
    const bool machine = machine_ && !machine_end_;
    watched.push_back({machine ? machine_->pidfd() : -1, POLLIN, 0});
    watched.push_back({servers_.asking(), POLLIN, 0});
    watched.push_back({leash_.get(), 0, 0});  // POLLERR is always told
    const std::size_t servers = watched.size();
    for (const int pidfd : servers_.watched()) watched.push_back({pidfd, POLLIN, 0});
    const std::size_t ports = watched.size();
    for (const int fd : ports_.watched()) watched.push_back({fd, POLLIN, 0});
    int timeout = -1;
    if (const auto deadline = next_deadline()) {
      const auto left = std::chrono::ceil<std::chrono::milliseconds>(*deadline - Clock::now());
      timeout = static_cast<int>(std::max<std::int64_t>(left.count(), 0));
    }
    const int ready = ::poll(watched.data(), watched.size(), timeout);
    if (ready < 0 && errno == EINTR) continue;
    if (ready < 0) return;
    const auto now = Clock::now();
    if (ready == 0 && worker_deadline_ && now >= *worker_deadline_) return;  // the worker has had its time
    servers_.start_due(now);
    if ((watched[0].revents & POLLIN) != 0) {
      take_request();
    } else if ((watched[0].revents | watched[1].revents) != 0) {
      worker_ended();
    }
    if (left_) return;
    if (watched[2].revents != 0 && !machine_end_) machine_ended();
    for (std::size_t i = servers; i < watched.size(); ++i) {
      if (watched[i].revents == 0) continue;
      if (i < ports) {
        servers_.ended(watched[i].fd);
      } else {
        ports_.take(watched[i].fd);
      }
    }
    if (watched[3].revents != 0) servers_.answer(watched[3].fd);
    if (watched[4].revents != 0 && leash_.valid()) {
      message_ = "the daemon that kept this spare is gone, or wants it no more";
      return;
    }
  }
}

std::optional<Supervisor::Clock::time_point> Supervisor::next_deadline() const {
  const auto due = servers_.next_due();
  return worker_deadline_ && due ? std::min(*worker_deadline_, *due) : due ? due : worker_deadline_;
}

void Supervisor::worker_ended() {
  pollfd ended{worker_.pidfd(), POLLIN, 0};
  // One that has only closed its socket is of no use any more.
  if (::poll(&ended, 1, 1000) <= 0) worker_.kill(SIGKILL);
  const auto exit = worker_.wait();
  message_ = "sbx-keeper-worker ended with " + (exit ? exit->describe() : exit.error().describe());
  left_ = true;
}

void Supervisor::take_request() {
  auto received = receive_message(socket_.get(), Descriptors::kRefused);
  if (received) return obey(received->message);
  if (received.error().code == ErrorCode::kUnavailable) return worker_ended();
  message_ = received.error().describe();
  left_ = true;
}

void Supervisor::obey(const Message& request) {
  switch (static_cast<Request>(request.kind)) {
    case Request::kReady:
      return report_ready(request.value);
    case Request::kFailed: {
      auto error = result_of(request);
      report_failure(error ? Error{ErrorCode::kInternal, text_of(request), {}} : std::move(error.error()));
      left_ = true;
      return;
    }
    case Request::kStopping:
      if (!stopping_) stopping_ = static_cast<StopMode>(std::clamp(request.value, 0, 2));
      spdlog::info("stopping");
      ports_.close();
      return;
    case Request::kLeave:
      message_ = text_of(request);
      left_ = true;
      return;
    default:
      break;
  }
  auto result = answer(static_cast<Request>(request.kind), request.value);
  const int fd = result ? result->get() : -1;
  Message reply = result ? keeper::answer(Result<void>{}) : keeper::answer(std::unexpected(std::move(result.error())));
  if (auto sent = send_message(socket_.get(), reply, fd); !sent) {
    message_ = sent.error().describe();
    left_ = true;
  }
}

Result<UniqueFd> Supervisor::answer(Request request, std::int32_t value) {
  const auto done = [](Result<void> result) -> Result<UniqueFd> {
    if (!result) return std::unexpected(std::move(result.error()));
    return UniqueFd();
  };
  switch (request) {
    case Request::kConnectControl:
      machine_->forget_ram_name();  // who asks for the guest has spoken to QEMU
      return vm::connect_port(spec_.runtime_folder, 0);
    case Request::kGuestRuns:
      if (guest_runs_ || loading_) break;
      return done(start_servers());
    case Request::kRehearseFiles:
      if (!spec_.spare || !guest_runs_ || reported_ || !spec_.workspaces.empty()) break;
      return done(rehearse_files());
    case Request::kRehearsed:
      if (!spec_.spare || reported_ || spec_.workspaces.empty()) break;
      return done(end_rehearsal());
    case Request::kAdopted:
      if (!spec_.spare || !reported_ || stopping_) break;
      return done(adopt());
    case Request::kMemoryLoaded:
      if (!loading_) break;
      return done(use_memory_up());
    case Request::kBootInstead:
      if (spec_.mode != LaunchMode::kResume || guest_runs_) break;
      return boot_instead();
    case Request::kSaveMemory:
      if (stopping_ != StopMode::kMemory || saving_ || !machine_ || machine_end_) break;
      return save_memory();
    case Request::kCommitMemory:
      if (!saving_) break;
      return done(commit_memory());
    case Request::kEndMachine:
      if (!stopping_ || !machine_) break;
      machine_->kill();
      return done(let_machine_end());
    case Request::kConnectFiles:
      return servers_.take_files_control();
    case Request::kMountsChanged:
      if (spec_.spare || !guest_runs_ || stopping_ || spec_.mode == LaunchMode::kTemplate) break;
      return done(servers_.change_mounts());
    case Request::kSealTemplate:
      if (spec_.mode != LaunchMode::kTemplate || reported_) break;
      return done(seal_template(value));
    default:
      break;
  }
  return fail(ErrorCode::kInvalid, "the supervisor refuses request " + std::to_string(static_cast<unsigned>(request)));
}

Result<void> Supervisor::use_memory_up() {
  auto loading = std::move(*loading_);
  loading_.reset();
  SBX_CHECK(vm::finish_loading_memory(loading, kFilterDeadline), "loading the memory image");
  return discard_memory_image(spec_);
}

Result<UniqueFd> Supervisor::boot_instead() {
  machine_.reset();
  loading_.reset();
  spec_.mode = LaunchMode::kBoot;
  SBX_CHECK(start_machine(), "booting from the disk");
  tell_processes();
  return machine_->take_qmp();
}

Result<UniqueFd> Supervisor::save_memory() {
  ::unlink(unfinished_memory_image(spec_).c_str());
  saving_.emplace(SBX_TRY(vm::start_saving_memory(machine_->spec(), unfinished_memory_image(spec_)), "saving memory"));
  return std::move(saving_->stream);
}

// The image becomes one only when the QEMU that it was taken from has flushed its disk and ended by itself: of one that
// was killed nobody knows what the disk has got.
Result<void> Supervisor::commit_memory() {
  auto image = vm::finish_saving_memory(*saving_, kFilterDeadline);
  saving_.reset();
  auto ended = let_machine_end();
  if (image && !ended) image = std::unexpected(std::move(ended.error()));
  if (image && !machine_end_->success()) {
    image = fail(ErrorCode::kInternal, "QEMU ended with " + machine_end_->describe() + " instead of quitting");
  }
  if (image) image = keep_memory_image(spec_, machine_->spec().machine.purpose);
  if (!image) (void)discard_memory_image(spec_);
  kept_memory_ = image.has_value();
  return image;
}

Result<void> Supervisor::seal_template(std::int64_t boot_ms) {
  SBX_CHECK(let_machine_end(), "sealing the template");
  if (!machine_end_->success()) return fail(ErrorCode::kInternal, "QEMU ended with " + machine_end_->describe());
  SBX_CHECK(machine_->keep_template_ram(), "keeping the template's memory");
  auto sealed = seal_built_template(spec_, boot_ms);
  // On a busy disk this takes longer than the worker has for its farewell, which it cannot begin before.
  worker_deadline_ = Clock::now() + kFarewell;
  return sealed;
}

Result<void> Supervisor::let_machine_end() {
  if (machine_end_) return {};
  const auto ended = machine_->wait_or_kill(kQuitDeadline);
  machine_ended();
  if (!ended) return std::unexpected(ended.error());
  return {};
}

void Supervisor::machine_ended() {
  const auto status = machine_->wait();
  machine_end_ = status ? *status : ExitStatus{255, 0};
  tell(Event::kMachineEnded, machine_end_->code, machine_end_->signal);
  if (stopping_) return;
  spdlog::info("QEMU ended by itself: {}", machine_end_->describe());
  worker_deadline_ = Clock::now() + kFarewell;
}

// A worker that does not read is as good as none.
void Supervisor::tell(Event event, std::int32_t value, std::int32_t more, int fd) {
  if (!worker_.running() || send_message(socket_.get(), message(event, value, more), fd)) return;
  worker_.kill(SIGKILL);
}

void Supervisor::tell_processes() {
  const auto qemu = machine_ ? machine_->qemu_pid() : fail(ErrorCode::kNotFound, "");
  tell(Event::kProcesses, qemu.value_or(0), servers_.files_pid());
}

void Supervisor::report_ready(std::int64_t ms) {
  if (reported_) return;
  reported_ = true;
  tell_processes();
  if (spec_.mode != LaunchMode::kTemplate) {
    ms = std::chrono::duration_cast<std::chrono::milliseconds>(Clock::now() - began_).count();
  }
  report_line({{"ready", true}, {"ms", ms}});
}

void Supervisor::report_failure(Error error) {
  if (reported_) return;
  reported_ = failed_ = true;
  if (machine_) {
    if (const auto log = machine_->log(); !log.empty()) error.message += "; QEMU said: " + log;
  }
  if (spec_.mode == LaunchMode::kTemplate) {
    error.message += "; the guest's console ends with:\n" + console_tail(spec_);
  }
  message_ = error.describe();
  spdlog::error("the sandbox did not start: {}", message_);
  report_line({{"error", {{"code", to_string(error.code)}, {"message", message_}}}});
}

int Supervisor::finish() {
  if (!reported_) report_failure(Error{ErrorCode::kInternal, message_, {}});
  if (worker_.running()) worker_.kill(SIGKILL);
  saving_.reset();
  const bool ended_by_itself = machine_end_.has_value();
  machine_.reset();
  servers_.end();
  if (spec_.mode != LaunchMode::kTemplate) leave_record(ended_by_itself);
  return failed_ ? 1 : 0;
}

void Supervisor::leave_record(bool ended_by_itself) {
  json record;
  std::string reason = "failed";
  if (failed_) {
    reason = "failed";
  } else if (stopping_) {
    reason = *stopping_ == StopMode::kKill ? "killed" : "stopped";
  } else if (ended_by_itself) {
    reason = machine_end_->success() ? "guest_powered_off" : "qemu_exited";
    message_ = "QEMU ended with " + machine_end_->describe();
  }
  record["reason"] = reason;
  record["message"] = message_;
  record["kept_memory"] = kept_memory_;
  record["at"] = rfc3339(std::chrono::system_clock::now());
  auto written = write_file_atomically(spec_.runtime_folder / "exit.json", dump(record));
  if (!written) spdlog::error("exit.json: {}", written.error().describe());
}

}  // namespace sbx::keeper
