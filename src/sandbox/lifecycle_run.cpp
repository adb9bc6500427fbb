#include <signal.h>

#include <algorithm>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/experimental/awaitable_operators.hpp>

#include "base/file.h"
#include "base/random.h"
#include "sandbox/json_fields.h"
#include "sandbox/launch_spec.h"
#include "sandbox/lifecycle.h"
#include "store/clock.h"
#include "vm/jail.h"
#include "vm/machine_process.h"
#include "wire/length_prefix.h"

namespace sbx::sandbox {
namespace asio = boost::asio;
namespace fs = std::filesystem;
using namespace asio::experimental::awaitable_operators;
using namespace std::chrono_literals;

namespace {

constexpr auto kCloneDeadline = 60s;
constexpr auto kBootDeadline = 180s;
constexpr auto kStatusDeadline = 5s;
constexpr auto kStopDeadline = 60s;
// What a keeper whose machine has ended needs at most to leave.
constexpr auto kDyingDeadline = 10s;

// The guest's own choice is the first workspace: in clone mode what is cloned, not the clone.
void start_in_clone(const store::Sandbox& row, nlohmann::json& head) {
  if (!row.clone.empty() && text_field(head, "cwd").empty()) head["cwd"] = row.clone;
}

}  // namespace

Awaitable<Result<void>> Lifecycle::launch(store::Sandbox& row, std::string mode, store::State then) {
  LaunchFolders folders;
  folders.runtime = paths_.runtime(row.id);
  folders.sandbox = paths_.sandbox(row.id);
  folders.template_folder = paths_.templates() / row.template_id;
  folders.image = paths_.images() / row.image_id;
  std::error_code error;
  fs::remove_all(folders.runtime, error);
  SBX_CO_CHECK(make_folders(folders.runtime, 0700), "making the runtime folder");
  SBX_CO_CHECK(make_folders(folders.sandbox, 0700), "making the sandbox's folder");
  const fs::path log = folders.runtime / "keeper.log";
  SBX_CO_TRY(auto facts, co_await guest_facts(row), "starting the keeper");
  SBX_CO_CHECK(offer_ssh_agent(row), "starting the keeper");
  SBX_CO_TRY(auto gateway, vm::listen_in(folders.runtime, "gateway.sock"), "starting the keeper");
  SBX_CO_TRY(const auto slot, store_.jail_slot(row.id, vm::kJailSlots, spares_.slots()), "starting the keeper");
  facts.jail_slot = static_cast<int>(slot);
  if (fs::exists(artifacts_.keeper_program().parent_path() / "sbx-gateway", error)) facts.gateway_fd = gateway.get();
  SBX_CO_TRY(auto keeper,
             spawn_keeper(artifacts_.keeper_program(), launch_spec(row, mode, folders, facts), facts.gateway_fd, log),
             "starting the keeper");
  gateway.reset();  // the keeper's now
  row.keeper_pid = keeper.pid;
  row.keeper_start = keeper.start_time;
  auto live = watch(row, std::move(keeper.pidfd), nullptr);
  if (facts.gateway_fd >= 0) live->gateway = link_gateway(row);  // configured while the machine comes up
  SBX_CO_CHECK(store_.update(row), "recording the keeper");
  const auto deadline = mode == "clone" ? kCloneDeadline : kBootDeadline;
  auto ready = co_await wait_until_ready(std::move(keeper.output), deadline, log);
  if (ready) {
    auto client = KeeperClient::connect(loop_.get_executor(), folders.runtime / "keeper.sock");
    if (client)
      live->client = *client;
    else
      ready = std::unexpected(client.error());
  }
  if (!ready) {
    co_await end_keeper(row.id, Ending::kAtOnce);
    co_return ready;
  }
  // What it resumed from is history: the disk has moved on.
  if (mode == "resume") fs::remove(folders.sandbox / "memory.img", error);
  row.state = then;
  row.reason.clear();
  row.started_at = row.last_used_at = store::now_ms();
  row.stopped_at = 0;
  co_return store_.update(row);
}

Awaitable<Result<bool>> Lifecycle::start_locked(store::Sandbox row, StartOptions options, Progress progress) {
  if (live_.contains(row.id) && row.state == store::State::kRunning) {
    if (!options.cold) co_return false;
    co_return fail(ErrorCode::kConflict, "sandbox '" + row.name + "' runs already; stop it before a cold start");
  }
  if (row.state == store::State::kCreating || row.state == store::State::kRemoving) {
    co_return fail(ErrorCode::kConflict,
                   "sandbox '" + row.name + "' is not usable (" + std::string(store::to_string(row.state)) + ")");
  }
  SBX_CO_CHECK(ensure_policy(progress), "starting a sandbox");
  const fs::path folder = paths_.sandbox(row.id);
  const bool has_memory = !options.cold && fs::exists(folder / "memory.img");
  const std::string mode = has_memory ? "resume" : options.cold || fs::exists(folder / "disk.qcow2") ? "boot" : "clone";
  const auto busy = spares_.busy();
  progress("Starting sandbox " + row.name + (mode == "boot" ? " (booting; takes a while without KVM)" : ""));
  auto ports = bind_stored_ports(row, progress);
  auto started = co_await launch(row, mode);
  if (!started && mode == "resume") {
    // The kept memory is gone by now whatever happened; the disk was left clean and boots.
    progress("The kept memory of " + row.name + " could not be used; booting from its disk");
    std::error_code error;
    fs::remove(folder / "memory.img", error);
    started = co_await launch(row, "boot");
  }
  if (!started) co_return std::unexpected(std::move(started.error()).while_doing("starting sandbox " + row.name));
  co_await serve_stored_ports(row.id, std::move(ports), progress);
  // A sandbox that has spoilt it for itself is of use for mending that.
  const auto placed = co_await place_clone_again(row);
  if (!placed) progress("WARNING: " + placed.error().message);
  co_return true;
}

Awaitable<Result<bool>> Lifecycle::start(std::string name, StartOptions options, Progress progress) {
  SBX_CO_TRY(auto row, require(name), "starting a sandbox");
  SBX_CO_TRY(auto guard, co_await lock(row.id), "waiting for the sandbox");
  SBX_CO_TRY(row, require(row.id), "starting a sandbox");
  co_return co_await start_locked(row, options, std::move(progress));
}

std::shared_ptr<Lifecycle::Live> Lifecycle::watch(const store::Sandbox& row, UniqueFd pidfd,
                                                  std::shared_ptr<KeeperClient> client) {
  auto live = std::make_shared<Live>(loop_.get_executor());
  live->pid = static_cast<pid_t>(row.keeper_pid);
  live->pidfd = std::make_shared<asio::posix::stream_descriptor>(loop_, pidfd.release());
  live->client = std::move(client);
  live_[row.id] = live;
  asio::co_spawn(loop_, wait_for_end(row.id, live), asio::detached);
  return live;
}

Awaitable<void> Lifecycle::wait_for_end(std::string id, std::shared_ptr<Live> live) {
  boost::system::error_code ignored;
  co_await live->pidfd->async_wait(asio::posix::stream_descriptor::wait_read,
                                   asio::redirect_error(asio::use_awaitable, ignored));
  reap_keeper(live->pid);
  live->ended.set();
  if (live->gateway) live->gateway->stop();
  auto guard = co_await lock(id);
  if (const auto found = live_.find(id); found != live_.end() && found->second == live) live_.erase(found);
  auto row = store_.find(id);
  if (row && *row && (*row)->state == store::State::kRunning && (*row)->keeper_pid == live->pid) mark_stopped(**row);
}

void Lifecycle::mark_stopped(store::Sandbox row) {
  row.state = store::State::kStopped;
  row.stopped_at = store::now_ms();
  row.keeper_pid = 0;
  row.keeper_start = 0;
  row.reason = "the keeper ended without a record";
  if (auto record = read_file(paths_.runtime(row.id) / "exit.json", 64U << 10U); record) {
    const auto parsed = nlohmann::json::parse(*record, nullptr, false);
    const std::string message = text_field(parsed, "message");
    row.reason = text_field(parsed, "reason", "unknown") + (message.empty() ? "" : ": " + message);
  }
  (void)store_.update(row);
}

Awaitable<void> Lifecycle::end_keeper(std::string id, Ending ending) {
  const auto found = live_.find(id);
  if (found == live_.end()) co_return;
  const auto live = found->second;
  std::vector<std::string> modes;
  if (ending == Ending::kKeep) {
    modes.emplace_back("memory");
    modes.emplace_back("clean");
  }
  if (ending == Ending::kKillMachine) modes.emplace_back("kill");
  for (const auto& mode : modes) {
    if (live->ended.happened()) break;
    auto client = client_of(id);
    if (!client) break;
    const auto deadline = mode == "kill" ? std::chrono::milliseconds(10s) : std::chrono::milliseconds(kStopDeadline);
    nlohmann::json body;
    body["mode"] = mode;
    auto answer = co_await (*client)->call("POST", "/stop", body, deadline);
    if (answer) break;
  }
  if (!live->ended.happened()) {
    // A keeper that was asked nicely leaves within this time; its children die with it either way.
    asio::steady_timer impatience(loop_, ending == Ending::kAtOnce ? 0ms : 10'000ms);
    impatience.async_wait([live](boost::system::error_code error) {
      if (!error) kill_process(live->pidfd->native_handle(), SIGKILL);
    });
    co_await live->ended.wait();
  }
  if (const auto again = live_.find(id); again != live_.end() && again->second == live) live_.erase(again);
}

Awaitable<Result<void>> Lifecycle::stop_locked(store::Sandbox row) {
  if (!live_.contains(row.id)) co_return Result<void>{};
  co_await end_keeper(row.id, Ending::kKeep);
  SBX_CO_TRY(row, require(row.id), "stopping a sandbox");
  mark_stopped(row);
  co_return Result<void>{};
}

Awaitable<Result<void>> Lifecycle::stop(std::string name) {
  SBX_CO_TRY(auto row, require(name), "stopping a sandbox");
  SBX_CO_TRY(auto guard, co_await lock(row.id), "waiting for the sandbox");
  SBX_CO_TRY(row, require(row.id), "stopping a sandbox");
  co_return co_await stop_locked(row);
}

Result<std::shared_ptr<KeeperClient>> Lifecycle::client_of(const std::string& id) {
  const auto found = live_.find(id);
  if (found == live_.end()) return fail(ErrorCode::kUnavailable, "the sandbox is not running");
  auto& live = *found->second;
  if (!live.client || !live.client->alive()) {
    live.client = SBX_TRY(KeeperClient::connect(loop_.get_executor(), paths_.runtime(id) / "keeper.sock"),
                          "connecting to the keeper");
  }
  return live.client;
}

Result<std::shared_ptr<KeeperClient>> Lifecycle::keeper_of(const std::string& name) {
  const auto row = SBX_TRY(require(name), "finding the sandbox");
  if (!live_.contains(row.id)) return fail(ErrorCode::kUnavailable, "sandbox '" + row.name + "' is not running");
  return client_of(row.id);
}

Result<std::shared_ptr<KeeperClient>> Lifecycle::keeper_of_exec(const std::string& exec_id) {
  for (const auto& [id, live] : live_) {
    if (exec_id.size() > 8 && id.starts_with(exec_id.substr(0, 8))) return client_of(id);
  }
  return fail(ErrorCode::kNotFound, "command '" + exec_id + "' not found (its sandbox may have stopped)");
}

Awaitable<nlohmann::json> Lifecycle::status(std::string name) {
  auto client = keeper_of(name);
  if (!client) co_return nullptr;
  auto answer = co_await (*client)->call("GET", "/status", nullptr, kStatusDeadline);
  if (!answer) co_return nullptr;
  const auto row = store_.find(name);
  const auto live = row && *row ? live_.find((*row)->id) : live_.end();
  if (live != live_.end() && live->second->gateway) (*answer)["gateway"] = live->second->gateway->state();
  co_return *answer;
}

Awaitable<Result<std::shared_ptr<Lifecycle::Live>>> Lifecycle::ready_for_exec(const store::Sandbox& row,
                                                                              Progress progress) {
  const StartOptions options;
  auto started = co_await start_locked(row, options, progress);
  if (!started) co_return std::unexpected(started.error());
  if (const auto reached = client_of(row.id); !reached) {
    // Nobody listens on the keeper's socket any more: it is about to end. Let it, and start the sandbox again.
    SBX_CO_CHECK(co_await stop_locked(row), "waiting for the end of the sandbox's keeper");
    SBX_CO_TRY(auto stopped, require(row.id), "starting the sandbox again");
    SBX_CO_CHECK(co_await start_locked(stopped, options, progress), "starting the sandbox again");
  }
  SBX_CO_TRY(auto client, client_of(row.id), "reaching the sandbox");
  (void)client;
  auto current = store_.find(row.id);
  if (current && *current) {
    (*current)->last_used_at = store::now_ms();
    (void)store_.update(**current);
  }
  co_return live_[row.id];
}

Awaitable<Result<ExecSession>> Lifecycle::exec(std::string name, nlohmann::json head, Progress progress) {
  SBX_CO_TRY(auto row, require(name), "running a command");
  SBX_CO_TRY(auto guard, co_await lock(row.id), "waiting for the sandbox");
  SBX_CO_TRY(row, require(row.id), "running a command");
  SBX_CO_TRY(auto live, co_await ready_for_exec(row, std::move(progress)), "running a command");
  ExecSession session;
  session.id = row.id.substr(0, 8) + random_hex(8);
  session.keeper = live->client;
  ++live->sessions;
  session.in_use = std::shared_ptr<void>(live.get(), [live](void*) { --live->sessions; });
  head["id"] = session.id;
  start_in_clone(row, head);
  head["detach"] = false;
  SBX_CO_TRY(session.stream, live->client->open("POST", "/exec", false), "reaching the sandbox");
  SBX_CO_CHECK(co_await session.stream->write(wire::length_prefixed(dump(head))), "sending the command");
  co_return session;
}

Awaitable<void> Lifecycle::wait_for_end_of(std::string name) {
  const auto row = store_.find(name);
  const auto found = row && *row ? live_.find((*row)->id) : live_.end();
  if (found == live_.end()) co_return;
  const auto live = found->second;
  asio::steady_timer impatience(loop_, kDyingDeadline);
  co_await (live->ended.wait() || impatience.async_wait(asio::as_tuple(asio::use_awaitable)));
}

Awaitable<Result<nlohmann::json>> Lifecycle::exec_detached(std::string name, nlohmann::json head, Progress progress) {
  auto first = co_await start_detached(name, head, progress);
  if (!first) co_return std::unexpected(std::move(first.error()));
  if (first->status != kMachineEnded) co_return detached_outcome(*first);
  co_await wait_for_end_of(name);
  SBX_CO_TRY(const auto second, co_await start_detached(name, head, progress), "trying once more");
  co_return detached_outcome(second);
}

Awaitable<Result<Lifecycle::DetachedAnswer>> Lifecycle::start_detached(std::string name, nlohmann::json head,
                                                                       Progress progress) {
  SBX_CO_TRY(auto row, require(name), "running a command");
  SBX_CO_TRY(auto guard, co_await lock(row.id), "waiting for the sandbox");
  SBX_CO_TRY(row, require(row.id), "running a command");
  SBX_CO_TRY(auto live, co_await ready_for_exec(row, std::move(progress)), "running a command");
  DetachedAnswer answer;
  answer.id = row.id.substr(0, 8) + random_hex(8);
  head["id"] = answer.id;
  head["detach"] = true;
  start_in_clone(row, head);
  SBX_CO_TRY(auto stream, live->client->open("POST", "/exec", false), "reaching the sandbox");
  SBX_CO_CHECK(co_await stream->write(wire::length_prefixed(dump(head))), "sending the command");
  SBX_CO_CHECK(co_await stream->finish(), "sending the command");
  SBX_CO_TRY(const auto response, co_await stream->response(), "starting the command");
  answer.status = response.status;
  SBX_CO_TRY(answer.body, co_await wire::read_body(*stream, 64U << 10U), "starting the command");
  co_return answer;
}

Result<nlohmann::json> Lifecycle::detached_outcome(const DetachedAnswer& answer) {
  const auto body = nlohmann::json::parse(answer.body, nullptr, false);
  if (answer.status >= 400) {
    const auto error = body.is_object() && body.contains("error") ? body["error"] : nlohmann::json::object();
    return fail(error_code_from(text_field(error, "code")),
                text_field(error, "message", "the command could not be started"));
  }
  return nlohmann::json{{"id", text_field(body, "id", answer.id)}};
}

}  // namespace sbx::sandbox
