#include "keeper/keeper.h"

#include <spdlog/spdlog.h>

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>

#include "keeper/machine.h"
#include "keeper/rehearsal.h"

namespace sbx::keeper {

namespace asio = boost::asio;
using nlohmann::json;
using wire::Awaitable;

namespace {

constexpr auto kToken = asio::as_tuple(asio::use_awaitable);
constexpr const char* kDiskFull =
    "the host has no space left for what this sandbox writes to its disk, so it waits; make room on the file system of "
    "the sandboxes (SBX_HOME, else ~/.local/share/sbx) and it goes on by itself";
constexpr std::chrono::seconds kClockDeadline{5};
constexpr std::chrono::hours kQuietDeadline{24};
// What the guest does about the end of a rehearsal is done in this time.
constexpr std::chrono::milliseconds kSettle{1000};

// Outside coroutines: GCC 12 cannot keep the arrays behind braced initialisers across a co_await.
// After another sbx-files took over.
constexpr int kMountAttempts = 10;

std::vector<Workspace> rehearsed_workspaces() {
  std::vector<Workspace> list(1);
  list.front().path = kRehearsedPath;
  return list;
}

json quiesce_request() { return {{"grace_ms", 500}}; }
StopMode stop_mode(const std::string& word) {
  if (word == "memory") return StopMode::kMemory;
  return word == "kill" ? StopMode::kKill : StopMode::kClean;
}
std::string stop_answer(bool kept_memory) { return json{{"kept_memory", kept_memory}}.dump(); }

json pid_or_null(pid_t pid) { return pid > 0 ? json(pid) : json(nullptr); }

Awaitable<void> pause_for(std::chrono::milliseconds time) {
  asio::steady_timer timer(co_await asio::this_coro::executor, time);
  (void)co_await timer.async_wait(kToken);
}

std::int64_t wall_clock_ns() {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  return std::chrono::duration_cast<std::chrono::nanoseconds>(now).count();
}

constexpr std::chrono::seconds kMountDeadline{60};
constexpr std::size_t kLongestAdoption = 4U << 20U;  // as the guest takes of an identity

Result<std::vector<Workspace>> mounts_in(const json& request) {
  try {
    return workspaces_from(request.at("workspaces"));
  } catch (const json::exception& error) {
    return fail(ErrorCode::kInvalid, std::string("the request is malformed: ") + error.what());
  }
}

}  // namespace

Keeper::Keeper(asio::io_context& io, WorkerSpec spec, SupervisorClient& supervisor, UniqueFd listener)
    : io_(io),
      spec_(std::move(spec)),
      supervisor_(supervisor),
      guest_(io.get_executor(), [&supervisor] { return supervisor.ask(Request::kConnectControl); }),
      files_(io.get_executor()),
      execs_(io.get_executor(), guest_, [this] { return files_.ask(); }),
      ports_(io.get_executor(), guest_),
      acceptor_(io, asio::local::stream_protocol(), listener.release()) {
  supervisor.on_port_event([this](Received event) { ports_.handle(std::move(event)); });
}

Awaitable<void> Keeper::run(UniqueFd qmp, UniqueFd state) {
  auto started = co_await start(std::move(qmp), std::move(state));
  if (!started) {
    spdlog::error("the sandbox did not start: {}", started.error().describe());
    supervisor_.tell(Request::kFailed, 1 + static_cast<int>(started.error().code), started.error().describe());
    io_.stop();
    co_return;
  }
  if (spec_.spare)
    state_ = State::kSpare;
  else
    begin_to_run();
  supervisor_.tell(Request::kReady);
  asio::co_spawn(io_, watch_machine(), asio::detached);
  co_await accept();
}

void Keeper::begin_to_run() {
  state_ = State::kRunning;
  running_since_ = std::chrono::system_clock::now();
  asio::co_spawn(io_, watch_guest(), asio::detached);
  asio::co_spawn(io_, watch_disk(), asio::detached);
  asio::co_spawn(io_, park_when_idle(), asio::detached);
  asio::co_spawn(io_, watch_files_server(), asio::detached);
}

Awaitable<Result<void>> Keeper::start(UniqueFd qmp, UniqueFd state) {
  SBX_CO_TRY(machine_, co_await start_machine(spec_, std::move(qmp), std::move(state), supervisor_),
             "starting the virtual machine");
  SBX_CO_CHECK(co_await supervisor_.ask(Request::kGuestRuns), "starting the servers of the guest's ports");
  const auto patience = std::chrono::seconds(spec_.mode == LaunchMode::kBoot ? 180 : 30);
  if (spec_.spare) {
    SBX_CO_CHECK(co_await guest_.connect(patience), "reaching the guest");
    co_return co_await lay_by();
  }
  co_return co_await greet_guest(patience);
}

Awaitable<Result<void>> Keeper::greet_guest(std::chrono::milliseconds deadline) {
  SBX_CO_CHECK(co_await guest_.connect(deadline), "reaching the guest");
  co_return co_await make_ready();
}

Awaitable<Result<void>> Keeper::make_ready() {
  json identity = spec_.identity;
  identity["time_ns"] = wall_clock_ns();
  SBX_CO_CHECK(co_await guest_.call("POST", "/identity", std::move(identity)), "giving the guest its identity");
  SBX_CO_CHECK(co_await mount_workspaces(), "mounting the workspaces");
  SBX_CO_CHECK(co_await guest_.call("POST", "/thaw", json::object()), "thawing the guest");
  co_return Result<void>{};
}

// A spare has gone through a start once, with an identity that is nobody's and an empty folder. Nothing of that is left
// but what the guest did not have to do again, and its user's part is frozen as it is in a template. From then on its
// CPUs stand still until it is somebody's.
Awaitable<Result<void>> Keeper::lay_by() {
  SBX_CO_CHECK(co_await rehearse_identity(guest_, "\n\n"), "rehearsing a start");
  SBX_CO_CHECK(co_await supervisor_.ask(Request::kRehearseFiles), "rehearsing a start");
  spec_.workspaces = rehearsed_workspaces();
  SBX_CO_CHECK(co_await mount_workspaces(), "rehearsing a start");
  SBX_CO_CHECK(co_await rehearse_command(guest_, ""), "rehearsing a start");
  SBX_CO_CHECK(co_await guest_.call("POST", "/unmount", json::object()), "rehearsing a start");
  SBX_CO_CHECK(co_await guest_.call("POST", "/freeze", json::object()), "rehearsing a start");
  SBX_CO_CHECK(co_await supervisor_.ask(Request::kRehearsed), "rehearsing a start");
  spec_.workspaces.clear();
  files_.connect(UniqueFd());
  files_connected_ = guest_has_files_ = false;
  co_await pause_for(kSettle);
  SBX_CO_CHECK(co_await machine_->pause(), "pausing the spare");
  co_return Result<void>{};
}

Awaitable<Result<void>> Keeper::adopt(json request) {
  auto list = mounts_in(request);
  if (!list) co_return std::unexpected(std::move(list.error()));
  spec_.workspaces = std::move(*list);
  spec_.identity = request.value("identity", json::object());
  SBX_CO_CHECK(co_await supervisor_.ask(Request::kAdopted), "adopting the spare");
  SBX_CO_CHECK(co_await machine_->resume(), "letting the guest run");
  co_return co_await make_ready();
}

// Half adopted it is of no use to anybody, and ends.
Awaitable<void> Keeper::answer_adoption(std::shared_ptr<wire::Http2Stream> stream) {
  auto body = co_await wire::read_body(*stream, kLongestAdoption);
  json request = json::parse(body.value_or(""), nullptr, false);
  if (state_ != State::kSpare) {
    const Error error{ErrorCode::kConflict, "this is no spare", {}};
    co_return co_await wire::send_error(*stream, error);
  }
  state_ = State::kStarting;
  auto adopted = co_await adopt(std::move(request));
  if (state_ != State::kStarting) adopted = fail(ErrorCode::kUnavailable, "the virtual machine has ended");
  if (adopted) {
    begin_to_run();
    co_return co_await wire::send_json(*stream, 200, "{}");
  }
  state_ = State::kStopping;
  co_await wire::send_error(*stream, adopted.error());
  co_await pause_for(std::chrono::milliseconds(20));
  leave(adopted.error().describe());
}

Awaitable<Result<void>> Keeper::mount_workspaces() {
  if (spec_.workspaces.empty()) co_return Result<void>{};
  if (!files_connected_) {
    SBX_CO_TRY(auto control, co_await supervisor_.ask(Request::kConnectFiles), "connecting to the file server");
    files_.connect(std::move(control));
    files_connected_ = true;
  }
  SBX_CO_CHECK(co_await guest_.call("POST", "/mount", workspaces_json(spec_.workspaces), kMountDeadline), "mounting");
  guest_has_files_ = true;
  co_return Result<void>{};
}

// sbx-files has it before the guest looks for it.
Awaitable<Result<void>> Keeper::add_mount(json request) {
  auto list = mounts_in(request);
  if (!list) co_return std::unexpected(std::move(list.error()));
  SBX_CO_CHECK(co_await supervisor_.ask(Request::kMountsChanged), "mounting");
  spec_.workspaces.insert(spec_.workspaces.end(), list->begin(), list->end());
  Result<void> mounted;
  if (guest_has_files_) {
    auto answer = co_await guest_.call("POST", "/mount/add", workspaces_json(*list), kMountDeadline);
    if (!answer) mounted = std::unexpected(std::move(answer.error()));
  } else {
    mounted = co_await mount_workspaces();
  }
  if (!mounted) forget_workspaces(*list);
  co_return mounted;
}

// The guest may refuse since it is in use there, but not if it was forced. What it says otherwise does not matter:
// sbx-files loses it.
Awaitable<Result<void>> Keeper::remove_mount(json request) {
  auto list = mounts_in(request);
  if (!list) co_return std::unexpected(std::move(list.error()));
  json body = workspaces_json(*list);
  const bool force = request.value("force", false);
  body["force"] = force;
  auto unmounted = co_await guest_.call("POST", "/mount/remove", std::move(body), kMountDeadline);
  if (!unmounted && !force && unmounted.error().code == ErrorCode::kConflict)
    co_return std::unexpected(unmounted.error());
  if (!unmounted) spdlog::warn("the guest did not unmount: {}", unmounted.error().describe());
  forget_workspaces(*list);
  SBX_CO_CHECK(co_await supervisor_.ask(Request::kMountsChanged), "unmounting");
  co_return Result<void>{};
}

void Keeper::forget_workspaces(const std::vector<Workspace>& list) {
  std::erase_if(spec_.workspaces, [&](const Workspace& workspace) {
    return std::ranges::find(list, workspace.index, &Workspace::index) != list.end();
  });
}

Awaitable<void> Keeper::change_mounts(std::shared_ptr<wire::Http2Stream> stream, bool add) {
  auto body = co_await wire::read_body(*stream, 64U << 10U);
  json request = json::parse(body.value_or(""), nullptr, false);
  Result<void> done = fail(ErrorCode::kUnavailable, "the sandbox does not run");
  if (state_ == State::kRunning) {
    if (add)
      done = co_await add_mount(std::move(request));
    else
      done = co_await remove_mount(std::move(request));
  }
  if (!done) co_return co_await wire::send_error(*stream, done.error());
  co_await wire::send_json(*stream, 200, "{}");
}

Awaitable<void> Keeper::watch_machine() {
  while (!supervisor_.machine_end()) co_await supervisor_.changed().wait();
  if (state_ == State::kStopping) co_return;
  state_ = State::kStopping;
  execs_.guest_lost("the virtual machine has ended");
  co_await pause_for(std::chrono::milliseconds(50));  // lets the last frames reach attached clients
  leave("");
}

Awaitable<void> Keeper::watch_files_server() {
  int mounted = 0;
  while (state_ == State::kRunning) {
    if (supervisor_.files_replaced() == mounted) {
      co_await supervisor_.changed().wait();
      continue;
    }
    mounted = supervisor_.files_replaced();
    files_connected_ = guest_has_files_ = false;
    // Something in the guest may still be at the port.
    for (int attempt = 0; attempt < kMountAttempts && state_ == State::kRunning; ++attempt) {
      if (attempt > 0) co_await pause_for(std::chrono::seconds(1));
      if (guest_has_files_ || supervisor_.files_replaced() != mounted) break;
      auto again = co_await mount_workspaces();
      if (again) break;
      spdlog::error("the workspaces cannot be mounted again: {}", again.error().describe());
    }
  }
}

Awaitable<void> Keeper::watch_guest() {
  // The guest may break its own session; that costs it its commands, and it may come back.
  while (state_ == State::kRunning) {
    co_await guest_.lost();
    co_await pause_for(std::chrono::milliseconds(500));  // one that breaks it again and again costs us little
    if (state_ != State::kRunning) co_return;
    spdlog::warn("the control session has ended; connecting again");
    auto connected = co_await guest_.connect(std::chrono::seconds(10));
    if (!connected) spdlog::warn("the guest does not answer: {}", connected.error().describe());
  }
}

// QEMU pauses a machine whose disk the host has no room for, so that nothing is lost. It goes on when there is some.
Awaitable<void> Keeper::watch_disk() {
  while (state_ == State::kRunning) {
    if (disk_full_) {
      co_await pause_for(std::chrono::seconds(1));
    } else {
      co_await machine_->qmp().readable();
    }
    if (state_ != State::kRunning) co_return;
    auto now = co_await machine_->status();
    if (!now) co_return;
    const bool full = *now == "io-error";
    if (full != disk_full_)
      spdlog::warn("{}", full ? kDiskFull : "there is room for the disk again; the sandbox goes on");
    disk_full_ = full;
    if (full) (void)co_await machine_->resume();  // which tries the write again
  }
}

Awaitable<void> Keeper::park_when_idle() {
  Parking::Steps steps;
  steps.pause = [this] { return machine_->pause(); };
  steps.resume = [this] { return machine_->resume(); };
  steps.put_clock_right = [this]() -> Awaitable<Result<void>> {
    json body = json::object();
    body["time_ns"] = wall_clock_ns();
    SBX_CO_CHECK(co_await guest_.call_now("POST", "/clock", std::move(body), kClockDeadline), "setting the clock");
    co_return Result<void>{};
  };
  steps.wait_until_quiet = [this]() -> Awaitable<Result<void>> {
    SBX_CO_CHECK(co_await guest_.call_now("GET", "/quiet", nullptr, kQuietDeadline), "asking whether anything runs");
    co_return Result<void>{};
  };
  co_await guest_.parking().run(std::move(steps));
}

Awaitable<void> Keeper::accept() {
  for (;;) {
    auto [error, socket] = co_await acceptor_.async_accept(kToken);
    if (error) co_return;
    asio::posix::stream_descriptor transport(io_, socket.release());
    // The handler needs the session it is part of; it exists before the first request is read.
    auto self = std::make_shared<std::weak_ptr<wire::Http2Session>>();
    auto session = wire::Http2Session::server(
        std::move(transport),
        [this, self](std::shared_ptr<wire::Http2Stream> stream) { return handle(std::move(stream), *self); });
    *self = session;
    asio::co_spawn(
        io_, [session]() -> Awaitable<void> { (void)co_await session->run(); }, asio::detached);
  }
}

Awaitable<void> Keeper::handle(std::shared_ptr<wire::Http2Stream> stream, std::weak_ptr<wire::Http2Session> daemon) {
  const std::string path = stream->request().path;
  if (path == "/status") {
    const json document = co_await status();
    co_return co_await wire::send_json(*stream, 200, document.dump());
  }
  if (path == "/stop") co_return co_await stop(stream);
  if (path == "/adopt") co_return co_await answer_adoption(stream);
  if (path == "/mount" || path == "/unmount") co_return co_await change_mounts(stream, path == "/mount");
  if (path == "/exec" && disk_full_ && stream->request().method == "POST") {
    const Error error{ErrorCode::kUnavailable, kDiskFull, {}};
    co_return co_await wire::send_error(*stream, error);
  }
  if (state_ == State::kSpare) {
    const Error error{ErrorCode::kConflict, "this is a spare, and nobody's yet", {}};
    co_return co_await wire::send_error(*stream, error);
  }
  if (path == "/exec" || path.starts_with("/exec/")) co_return co_await execs_.handle(stream, daemon);
  const Error error{ErrorCode::kNotFound, "no such route: " + path, {}};
  co_await wire::send_error(*stream, error);
}

const char* Keeper::state_word() const {
  switch (state_) {
    case State::kStarting:
      return "starting";
    case State::kSpare:
      return "spare";
    case State::kRunning:
      return "running";
    case State::kStopping:
      break;
  }
  return "stopping";
}

Awaitable<json> Keeper::status() {
  json document;
  document["sandbox_id"] = spec_.sandbox_id;
  document["pid"] = spec_.supervisor_pid;
  document["qemu_pid"] = pid_or_null(supervisor_.qemu_pid());
  document["files_pid"] = pid_or_null(supervisor_.files_pid());
  document["state"] = state_word();
  document["accelerator"] = vm::to_string(spec_.accelerator);
  document["parked"] = guest_.parking().parked();
  document["sessions"] = execs_.attached();
  document["disk_full"] = disk_full_;
  document["detached"] = execs_.detached_running();
  document["connections"] = ports_.connections();
  document["idle_since_ms"] = idle_since();
  co_return document;
}

// Milliseconds since 1970; null while a session or a connection to a published port is open.
json Keeper::idle_since() const {
  const auto execs = execs_.idle_since();
  const auto ports = ports_.idle_since();
  if (!execs || !ports) return nullptr;
  // What it did before it was a sandbox does not count.
  const auto last = std::max({*execs, *ports, running_since_});
  return std::chrono::duration_cast<std::chrono::milliseconds>(last.time_since_epoch()).count();
}

Awaitable<void> Keeper::stop(std::shared_ptr<wire::Http2Stream> stream) {
  auto body = co_await wire::read_body(*stream, 4096);
  const auto request = json::parse(body.value_or(""), nullptr, false);
  const std::string mode = request.is_object() ? request.value("mode", "clean") : "clean";
  const bool spare = state_ == State::kSpare && mode == "kill";
  if (state_ != State::kRunning && !spare) {
    const Error error{ErrorCode::kConflict, "the sandbox is already stopping", {}};
    co_return co_await wire::send_error(*stream, error);
  }
  state_ = State::kStopping;
  ports_.close();
  guest_.parking().end();
  spdlog::info("stopping ({})", mode);
  supervisor_.tell(Request::kStopping, static_cast<int>(stop_mode(mode)));
  auto kept = co_await stop_machine(mode);
  execs_.guest_lost("the sandbox was stopped");
  co_await wire::send_json(*stream, 200, stop_answer(kept.value_or(false)));
  co_await pause_for(std::chrono::milliseconds(20));
  leave(kept ? "" : kept.error().describe());
}

Awaitable<Result<bool>> Keeper::stop_machine(std::string mode) {
  if (mode == "kill") {
    SBX_CO_CHECK(co_await supervisor_.ask(Request::kEndMachine), "ending QEMU");
    co_return false;
  }
  if (mode == "memory") {
    Result<json> step = co_await guest_.call("POST", "/quiesce", quiesce_request(), std::chrono::seconds(2));
    if (step) step = co_await guest_.call("POST", "/unmount", json::object(), std::chrono::seconds(2));
    if (step) step = co_await guest_.call("POST", "/drop-new-caches", json::object(), std::chrono::seconds(40));
    if (step) step = co_await guest_.call("POST", "/freeze", json::object(), std::chrono::seconds(5));
    if (step) {
      guest_.disconnect();
      auto saved = co_await stop_with_memory(*machine_, supervisor_);
      if (!saved) spdlog::warn("no memory image was kept: {}", saved.error().describe());
      co_return saved.has_value();
    }
    spdlog::warn("no memory image: {}", step.error().describe());
  }
  SBX_CO_CHECK(co_await stop_clean(), "shutting down");
  co_return false;
}

Awaitable<Result<void>> Keeper::stop_clean() {
  if (!guest_.connected()) (void)co_await guest_.connect(std::chrono::seconds(5));
  (void)co_await guest_.call("POST", "/thaw", json::object(), std::chrono::seconds(2));
  auto asked = co_await guest_.call("POST", "/shutdown", json::object(), std::chrono::seconds(20));
  if (!asked) spdlog::warn("the guest did not take the shutdown: {}", asked.error().describe());
  asio::steady_timer deadline(io_, asked ? std::chrono::seconds(20) : std::chrono::seconds(2));
  bool late = false;
  deadline.async_wait([&](auto error) {
    if (error) return;
    late = true;
    supervisor_.changed().notify();
  });
  while (!supervisor_.machine_end() && !late) co_await supervisor_.changed().wait();
  deadline.cancel();
  co_await pause_for(std::chrono::milliseconds(0));  // an expiry that is queued already must not outlive `late`
  if (supervisor_.machine_end()) co_return Result<void>{};
  co_await machine_->quit();
  SBX_CO_CHECK(co_await supervisor_.ask(Request::kEndMachine), "ending QEMU");
  co_return fail(ErrorCode::kTimeout, "the guest did not shut down in time and was ended");
}

void Keeper::leave(const std::string& message) {
  supervisor_.tell(Request::kLeave, 0, message);
  io_.stop();
}

}  // namespace sbx::keeper
