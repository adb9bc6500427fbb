#include "keeper/keeper.h"

#include <fcntl.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>

#include "base/file.h"
#include "keeper/files_server.h"
#include "keeper/machine.h"

namespace sbx::keeper {

namespace asio = boost::asio;
using nlohmann::json;
using wire::Awaitable;

namespace {

constexpr auto kToken = asio::as_tuple(asio::use_awaitable);
constexpr int kMaxFilesRestarts = 20;

// Outside coroutines: GCC 12 cannot keep the arrays behind braced initialisers across a co_await.
json quiesce_request() { return {{"grace_ms", 500}}; }
std::string stop_answer(bool kept_memory) { return json{{"kept_memory", kept_memory}}.dump(); }

Awaitable<void> pause_for(std::chrono::milliseconds time) {
  asio::steady_timer timer(co_await asio::this_coro::executor, time);
  (void)co_await timer.async_wait(kToken);
}

// Becomes readable when the process behind the pidfd has ended.
std::unique_ptr<asio::posix::stream_descriptor> watch(asio::io_context& io, int pidfd) {
  return std::make_unique<asio::posix::stream_descriptor>(io, ::fcntl(pidfd, F_DUPFD_CLOEXEC, 3));
}

}  // namespace

Keeper::Keeper(asio::io_context& io, LaunchSpec spec)
    : io_(io),
      spec_(std::move(spec)),
      guest_(io.get_executor(), spec_.runtime_folder),
      execs_(io.get_executor(), guest_),
      acceptor_(io) {}

Awaitable<void> Keeper::run(std::function<void(Result<std::int64_t>)> ready) {
  const auto began = std::chrono::steady_clock::now();
  auto started = co_await start();
  if (!started) {
    spdlog::error("the sandbox did not start: {}", started.error().describe());
    machine_.reset();
    leave("failed", started.error().describe(), false);
    ready(std::unexpected(std::move(started.error())));
    io_.stop();
    co_return;
  }
  state_ = State::kRunning;
  ready(std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::steady_clock::now() - began).count());
  asio::co_spawn(io_, watch_machine(), asio::detached);
  asio::co_spawn(io_, watch_guest(), asio::detached);
  if (!spec_.workspaces.empty()) asio::co_spawn(io_, watch_files_server(), asio::detached);
  co_await accept();
}

Awaitable<Result<void>> Keeper::start() {
  const auto socket_path = spec_.runtime_folder / "keeper.sock";
  SBX_CO_TRY(auto listener, vm::listen_in(spec_.runtime_folder, "keeper.sock"), "listening on keeper.sock");
  acceptor_.assign(asio::local::stream_protocol(), listener.release());
  const bool cold = spec_.mode == LaunchMode::kBoot;
  SBX_CO_TRY(machine_, co_await start_machine(spec_), "starting the virtual machine");
  if (!spec_.workspaces.empty()) {
    SBX_CO_TRY(auto program, sibling_program("sbx-files"), "starting the file server");
    SBX_CO_TRY(files_, start_files_server(spec_, program), "starting the file server");
  }
  const bool boots = cold || spec_.mode == LaunchMode::kBoot;
  co_return co_await greet_guest(boots ? std::chrono::seconds(180) : std::chrono::seconds(30));
}

Awaitable<Result<void>> Keeper::greet_guest(std::chrono::milliseconds deadline) {
  SBX_CO_CHECK(co_await guest_.connect(deadline), "reaching the guest");
  json identity = spec_.identity;
  identity["time_ns"] =
      std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::system_clock::now().time_since_epoch()).count();
  SBX_CO_CHECK(co_await guest_.call("POST", "/identity", std::move(identity)), "giving the guest its identity");
  SBX_CO_CHECK(co_await mount_workspaces(), "mounting the workspaces");
  SBX_CO_CHECK(co_await guest_.call("POST", "/thaw", json::object()), "thawing the guest");
  co_return Result<void>{};
}

Awaitable<Result<void>> Keeper::mount_workspaces() {
  if (spec_.workspaces.empty()) co_return Result<void>{};
  SBX_CO_CHECK(co_await guest_.call("POST", "/mount", workspaces_json(spec_.workspaces)), "mounting");
  co_return Result<void>{};
}

Awaitable<void> Keeper::watch_machine() {
  machine_watch_ = watch(io_, machine_->pidfd());
  (void)co_await machine_watch_->async_wait(asio::posix::stream_descriptor::wait_read, kToken);
  if (state_ == State::kStopping) co_return;
  auto exit = co_await machine_->exited();
  const bool orderly = exit && exit->success();
  const std::string how = exit ? exit->describe() : exit.error().message;
  spdlog::info("QEMU ended by itself: {}", how);
  execs_.guest_lost("the virtual machine has ended");
  leave(orderly ? "guest_powered_off" : "qemu_exited", "QEMU ended with " + how, false);
  co_await pause_for(std::chrono::milliseconds(50));  // lets the last frames reach attached clients
  io_.stop();
}

Awaitable<void> Keeper::watch_files_server() {
  while (state_ == State::kRunning) {
    files_watch_ = watch(io_, files_.pidfd());
    (void)co_await files_watch_->async_wait(asio::posix::stream_descriptor::wait_read, kToken);
    if (state_ != State::kRunning) co_return;
    auto exit = files_.wait();
    spdlog::warn("sbx-files ended ({}), starting it again", exit ? exit->describe() : exit.error().message);
    if (++files_restarts_ > kMaxFilesRestarts) {
      spdlog::error("sbx-files ends again and again; the workspaces stay away until the sandbox is restarted");
      co_return;
    }
    auto program = sibling_program("sbx-files");
    if (!program) co_return;
    auto server = start_files_server(spec_, *program);
    if (!server) {
      spdlog::error("sbx-files cannot be started: {}", server.error().describe());
      co_return;
    }
    files_ = std::move(*server);
    auto mounted = co_await mount_workspaces();
    if (!mounted) spdlog::error("the workspaces cannot be mounted again: {}", mounted.error().describe());
  }
}

Awaitable<void> Keeper::watch_guest() {
  // The guest may break its own session; that costs it its commands, and it may come back.
  while (state_ == State::kRunning) {
    co_await pause_for(std::chrono::milliseconds(500));
    if (state_ != State::kRunning || guest_.connected()) continue;
    spdlog::warn("the control session has ended; connecting again");
    auto connected = co_await guest_.connect(std::chrono::seconds(10));
    if (!connected) spdlog::warn("the guest does not answer: {}", connected.error().describe());
  }
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
  if (path == "/exec" || path.starts_with("/exec/")) co_return co_await execs_.handle(stream, daemon);
  const Error error{ErrorCode::kNotFound, "no such route: " + path, {}};
  co_await wire::send_error(*stream, error);
}

Awaitable<json> Keeper::status() {
  json document;
  document["sandbox_id"] = spec_.sandbox_id;
  document["pid"] = ::getpid();
  auto qemu = machine_ ? machine_->qemu_pid() : fail(ErrorCode::kNotFound, "");
  document["qemu_pid"] = qemu ? json(*qemu) : json(nullptr);
  document["files_pid"] = files_.running() ? json(files_.pid()) : json(nullptr);
  document["state"] = state_ == State::kStarting ? "starting" : state_ == State::kRunning ? "running" : "stopping";
  document["accelerator"] = vm::to_string(spec_.accelerator);
  document["sessions"] = execs_.attached();
  document["detached"] = execs_.detached_running();
  const auto idle = execs_.idle_since();
  document["idle_since_ms"] =
      idle ? json(std::chrono::duration_cast<std::chrono::milliseconds>(idle->time_since_epoch()).count())
           : json(nullptr);
  co_return document;
}

Awaitable<void> Keeper::stop(std::shared_ptr<wire::Http2Stream> stream) {
  auto body = co_await wire::read_body(*stream, 4096);
  const auto request = json::parse(body.value_or(""), nullptr, false);
  const std::string mode = request.is_object() ? request.value("mode", "clean") : "clean";
  if (state_ != State::kRunning) {
    const Error error{ErrorCode::kConflict, "the sandbox is already stopping", {}};
    co_return co_await wire::send_error(*stream, error);
  }
  state_ = State::kStopping;
  spdlog::info("stopping ({})", mode);
  auto kept = co_await stop_machine(mode);
  execs_.guest_lost("the sandbox was stopped");
  const bool kept_memory = kept.value_or(false);
  leave(mode == "kill" ? "killed" : "stopped", kept ? "" : kept.error().describe(), kept_memory);
  co_await wire::send_json(*stream, 200, stop_answer(kept_memory));
  co_await pause_for(std::chrono::milliseconds(20));
  io_.stop();
}

Awaitable<Result<bool>> Keeper::stop_machine(std::string mode) {
  if (mode == "kill") {
    machine_.reset();
    co_return false;
  }
  if (mode == "memory") {
    Result<json> step = co_await guest_.call("POST", "/quiesce", quiesce_request(), std::chrono::seconds(2));
    if (step) step = co_await guest_.call("POST", "/unmount", json::object(), std::chrono::seconds(2));
    if (step) step = co_await guest_.call("POST", "/drop-caches", json::object(), std::chrono::seconds(10));
    if (step) step = co_await guest_.call("POST", "/freeze", json::object(), std::chrono::seconds(5));
    if (step) {
      guest_.disconnect();
      auto saved = co_await stop_with_memory(spec_, *machine_);
      machine_.reset();
      if (!saved) spdlog::warn("no memory image was kept: {}", saved.error().describe());
      co_return saved.has_value();
    }
    spdlog::warn("no memory image: {}", step.error().describe());
  }
  auto clean = co_await stop_clean();
  machine_.reset();
  if (!clean) co_return std::unexpected(std::move(clean.error()));
  co_return false;
}

Awaitable<Result<void>> Keeper::stop_clean() {
  if (!guest_.connected()) (void)co_await guest_.connect(std::chrono::seconds(5));
  (void)co_await guest_.call("POST", "/thaw", json::object(), std::chrono::seconds(2));
  auto asked = co_await guest_.call("POST", "/shutdown", json::object(), std::chrono::seconds(20));
  if (!asked) spdlog::warn("the guest did not take the shutdown: {}", asked.error().describe());
  asio::steady_timer deadline(io_, asked ? std::chrono::seconds(20) : std::chrono::seconds(2));
  auto ended = watch(io_, machine_->pidfd());
  deadline.async_wait([&](auto error) {
    if (!error) ended->cancel();
  });
  auto [error] = co_await ended->async_wait(asio::posix::stream_descriptor::wait_read, kToken);
  deadline.cancel();
  if (!error) co_return Result<void>{};
  SBX_CO_CHECK(co_await machine_->quit(), "ending QEMU");
  co_return fail(ErrorCode::kTimeout, "the guest did not shut down in time and was ended");
}

void Keeper::leave(std::string reason, std::string message, bool kept_memory) {
  json record;
  record["reason"] = std::move(reason);
  record["message"] = std::move(message);
  record["kept_memory"] = kept_memory;
  record["at"] = rfc3339(std::chrono::system_clock::now());
  auto written = write_file_atomically(spec_.runtime_folder / "exit.json",
                                       record.dump(-1, ' ', false, json::error_handler_t::replace));
  if (!written) spdlog::error("exit.json: {}", written.error().describe());
}

}  // namespace sbx::keeper
