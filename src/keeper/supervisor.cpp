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
#include "keeper/gateway_server.h"
#include "keeper/late_mount.h"
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

// A server that ends again and again is started again at once this many times, then later and later.
constexpr int kPromptRestarts = 10;
constexpr auto kLongestPause = 30s;
// One that has lived that long is forgiven.
constexpr auto kForgiveAfter = 60s;
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
      ports_([this](Event event, std::int32_t value, std::int32_t more, int fd) { tell(event, value, more, fd); },
             [this] { return unread_bytes(socket_.get()) < kMostUnread; }) {
  if (!spec_.workspaces.empty()) {
    servers_.push_back({"sbx-files", &start_files_server, Event::kFilesReplaced, Subprocess(), 0, UniqueFd()});
  }
  if (spec_.gateway_fd >= 0)
    servers_.push_back({"sbx-gateway", &start_gateway, std::nullopt, Subprocess(), 0, UniqueFd()});
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
  for (Server& server : servers_) {
    server.process = SBX_TRY(server.start(spec_, server.control), "starting " + server.name);
    server.started = Clock::now();
  }
  guest_runs_ = true;
  tell_processes();
  return {};
}

void Supervisor::watch() {
  while (!left_) {
    std::vector<pollfd> watched = {{socket_.get(), POLLIN, 0}, {worker_.pidfd(), POLLIN, 0}};
    const bool machine = machine_ && !machine_end_;
    watched.push_back({machine ? machine_->pidfd() : -1, POLLIN, 0});
    for (const Server& server : servers_) {
      watched.push_back({server.process.running() ? server.process.pidfd() : -1, POLLIN, 0});
    }
    const std::size_t servers = servers_.size();  // a request may add one
    const auto ports = ports_.watched();
    for (const int fd : ports) watched.push_back({fd, POLLIN, 0});
    const Server* asking = asking_gateway();
    watched.push_back({asking != nullptr ? asking->control.get() : -1, POLLIN, 0});
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
    for (Server& server : servers_) {
      if (server.due && now >= *server.due) start_again(server);
    }
    if ((watched[0].revents & POLLIN) != 0) {
      take_request();
    } else if ((watched[0].revents | watched[1].revents) != 0) {
      worker_ended();
    }
    if (left_) return;
    if (watched[2].revents != 0 && !machine_end_) machine_ended();
    for (std::size_t i = 0; i < servers; ++i) {
      if (watched[3 + i].revents != 0) replace(servers_[i]);
    }
    for (std::size_t i = 0; i < ports.size(); ++i) {
      if (watched[3 + servers + i].revents != 0) ports_.take(ports[i]);
    }
    const auto& asked = watched.back();
    // Looked for again: a request may have moved the servers, or the gateway has just been replaced and asks on
    // another.
    Server* gateway = asking_gateway();
    if (asked.revents != 0 && gateway != nullptr && gateway->control.get() == asked.fd &&
        !connect_to_agent(asked.fd, spec_.ssh_agent_socket())) {
      gateway->control.reset();
    }
  }
}

// The gateway that may ask for connections to the SSH agent, or null.
Supervisor::Server* Supervisor::asking_gateway() {
  const auto gateway = std::ranges::find(servers_, "sbx-gateway", &Server::name);
  return gateway != servers_.end() && gateway->control.valid() ? &*gateway : nullptr;
}

std::optional<Supervisor::Clock::time_point> Supervisor::next_deadline() const {
  auto next = worker_deadline_;
  for (const Server& server : servers_) {
    if (server.due && (!next || *server.due < *next)) next = server.due;
  }
  return next;
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
      return connect_files();
    case Request::kMountsChanged:
      if (!guest_runs_ || stopping_ || spec_.mode == LaunchMode::kTemplate) break;
      return done(change_mounts());
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

Result<UniqueFd> Supervisor::connect_files() {
  for (Server& server : servers_) {
    if (server.control.valid() && server.name == "sbx-files") return std::move(server.control);
  }
  return fail(ErrorCode::kUnavailable, "there is no sbx-files to connect to");
}

// What is wanted is the daemon's word, in a file that neither the worker nor the guest can reach; the worker only says
// when to look.
Result<void> Supervisor::change_mounts() {
  const auto wanted = SBX_TRY(read_mounts(spec_.runtime_folder), "changing the mounts");
  const auto among = [](const std::vector<Workspace>& list, const Workspace& workspace) {
    return std::ranges::find(list, workspace.index, &Workspace::index) != list.end();
  };
  const auto server = std::ranges::find(servers_, "sbx-files", &Server::name);
  if (server == servers_.end()) {
    if (wanted.empty()) return {};
    spec_.workspaces = wanted;
    Server added{"sbx-files", &start_files_server, Event::kFilesReplaced, Subprocess(), 0, UniqueFd()};
    added.process = SBX_TRY(added.start(spec_, added.control), "starting sbx-files");
    added.started = Clock::now();
    servers_.push_back(std::move(added));
    tell_processes();
    return {};
  }
  // What is taken away is out of reach when this returns, whatever becomes of the server: the next one is started
  // without it, and one that it cannot be taken from ends.
  const auto before = std::exchange(spec_.workspaces, {});
  for (const auto& workspace : before) {
    if (among(wanted, workspace)) {
      spec_.workspaces.push_back(workspace);
    } else if (server->process.running()) {
      if (const auto done = unmount_from_jail(server->process.pid(), workspace); !done) {
        spdlog::warn("{}; sbx-files is started again without it", done.error().describe());
        server->process.kill(SIGKILL);
      }
    } else {
      server->due = Clock::now();  // it may have been what the server could not start for
    }
  }
  for (const auto& workspace : wanted) {
    if (among(spec_.workspaces, workspace)) continue;
    if (!server->process.running())
      return fail(ErrorCode::kUnavailable, "the sandbox's file server is being started again; try again in a moment");
    SBX_CHECK(mount_into_jail(server->process.pid(), workspace), "changing the mounts");
    spec_.workspaces.push_back(workspace);
  }
  return {};
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

void Supervisor::replace(Server& server) {
  const auto exit = server.process.wait();
  const std::string how = exit ? exit->describe() : exit.error().describe();
  if (stopping_ || machine_end_) return;
  server.restarts = Clock::now() - server.started > kForgiveAfter ? 1 : server.restarts + 1;
  if (server.restarts <= kPromptRestarts) {
    spdlog::warn("{} ended ({}), starting it again", server.name, how);
    return start_again(server);
  }
  const auto pause = pause_before(server);
  spdlog::error("{} ends again and again ({}); it is started again in {} s", server.name, how, pause.count());
  server.due = Clock::now() + pause;
}

std::chrono::seconds Supervisor::pause_before(const Server& server) {
  const int doublings = std::clamp(server.restarts - kPromptRestarts - 1, 0, 10);
  return std::min<std::chrono::seconds>(kLongestPause, 1s * (1 << doublings));
}

void Supervisor::start_again(Server& server) {
  server.due.reset();
  if (stopping_ || machine_end_) return;
  auto process = server.start(spec_, server.control);
  if (!process) {
    server.restarts = std::max(server.restarts, kPromptRestarts) + 1;
    const auto pause = pause_before(server);
    spdlog::error("{} cannot be started: {}; tried again in {} s", server.name, process.error().describe(),
                  pause.count());
    server.due = Clock::now() + pause;
    return;
  }
  server.process = std::move(*process);
  server.started = Clock::now();
  tell_processes();
  if (server.replaced) tell(*server.replaced);
}

// A worker that does not read is as good as none.
void Supervisor::tell(Event event, std::int32_t value, std::int32_t more, int fd) {
  if (!worker_.running() || send_message(socket_.get(), message(event, value, more), fd)) return;
  worker_.kill(SIGKILL);
}

void Supervisor::tell_processes() {
  const auto qemu = machine_ ? machine_->qemu_pid() : fail(ErrorCode::kNotFound, "");
  const auto files = std::ranges::find(servers_, "sbx-files", &Server::name);
  const pid_t files_pid = files != servers_.end() && files->process.running() ? files->process.pid() : 0;
  tell(Event::kProcesses, qemu.value_or(0), files_pid);
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
  servers_.clear();
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
