// Creation, removal and looking things up; lifecycle_run.cpp has starting, stopping and commands, lifecycle_adopt.cpp
// what happens when a daemon starts.
#include "sandbox/lifecycle.h"

#include <signal.h>

#include "base/random.h"
#include "sandbox/json_fields.h"
#include "sandbox/names.h"
#include "store/clock.h"

namespace sbx::sandbox {
namespace asio = boost::asio;
namespace fs = std::filesystem;

Lifecycle::Lifecycle(asio::io_context& loop, store::Paths paths, store::Database& database, fs::path programs)
    : loop_(loop),
      paths_(std::move(paths)),
      store_(database),
      port_store_(database),
      ssh_agents_(database),
      policy_(database),
      policy_log_(database),
      pool_(4),
      artifacts_(paths_, std::move(programs), loop.get_executor(), pool_),
      secrets_(loop, paths_.home),
      spares_(loop, paths_, store_, artifacts_, pool_, spare_limits()) {
  follow_changes();
}

Lifecycle::~Lifecycle() { pool_.stop(); }

Result<store::Sandbox> Lifecycle::require(const std::string& name) {
  auto row = SBX_TRY(store_.find(name), "looking for the sandbox");
  if (!row) return fail(ErrorCode::kNotFound, "sandbox '" + name + "' not found");
  return *row;
}

Result<store::Sandbox> Lifecycle::find(const std::string& name) { return require(name); }
Result<std::vector<store::Sandbox>> Lifecycle::list() { return store_.all(); }

Awaitable<Result<AsyncMutex::Guard>> Lifecycle::lock(std::string id) {
  auto& mutex = locks_[id];
  if (!mutex) mutex = std::make_shared<AsyncMutex>(loop_.get_executor());
  auto held = mutex;
  auto guard = co_await held->lock();
  co_return std::move(guard);
}

// A new installation: the default policy, said once.
Result<void> Lifecycle::ensure_policy(const Progress& progress) {
  if (SBX_TRY(policy_.ensure_initialised(), "preparing the policy"))
    progress("Network policy: balanced (the default). See 'sbx policy ls'; 'sbx policy reset' chooses anew");
  return {};
}

Result<void> Lifecycle::add_policy(const store::Sandbox& row, const CreateRequest& request) {
  for (const bool deny : {true, false}) {
    const auto& resources = deny ? request.deny_network : request.allow_network;
    if (resources.empty()) continue;
    policy::StoredRule rule;
    rule.scope.sandbox_id = row.id;
    rule.decision = deny ? "deny" : "allow";
    rule.resources = resources;
    rule.created_via = "provisioned";
    SBX_TRY(policy_.add(std::move(rule)), "adding the sandbox's rules");
  }
  for (const auto& profile : request.profiles)
    SBX_CHECK(policy_.attach_profile(profile, row.id), "attaching a profile");
  return {};
}

// The part of a creation that comes after its row.
Awaitable<Result<void>> Lifecycle::furnish(store::Sandbox& row, const CreateRequest& request,
                                           std::unique_ptr<Spare>& spare, Progress progress) {
  SBX_CO_CHECK(add_policy(row, request), "setting up the policy");
  if (!request.ssh_agent.empty()) SBX_CO_CHECK(ssh_agents_.set(row.id, request.ssh_agent), "forwarding the SSH agent");
  SBX_CO_TRY(const auto ports, bind_ports(request.ports), "publishing its ports");
  std::vector<store::PublishedPort> stored;
  for (const auto& bound : ports) stored.push_back(bound.port);
  SBX_CO_CHECK(port_store_.set(row.id, stored), "storing published ports");
  if (!spare) SBX_CO_CHECK(co_await choose_template(row, request, progress), "choosing a template");
  // Without its clone it is half made still, also to a daemon that finds it so.
  const auto then = request.clone ? store::State::kCreating : store::State::kRunning;
  SBX_CO_CHECK(co_await launch_new(row, std::move(spare), then), "starting the sandbox");
  SBX_CO_CHECK(co_await serve_ports(row.id, ports), "publishing its ports");
  if (request.clone) {
    SBX_CO_CHECK(co_await make_clone(row.id, *request.clone, progress), "cloning the repository");
    row.state = store::State::kRunning;
    SBX_CO_CHECK(store_.update(row), "storing the sandbox");
  }
  co_return Result<void>{};
}

Awaitable<Result<store::Sandbox>> Lifecycle::create(CreateRequest request, Progress progress) {
  SBX_CO_CHECK(ensure_policy(progress), "creating a sandbox");
  auto busy = spares_.busy();
  auto spare = spares_.take(request.image, request.cpus, request.memory_mib);
  store::Sandbox row;
  row.id = spare ? spare->id : new_id();
  row.agent = request.agent;
  row.workspaces = std::move(request.workspaces);
  if (request.clone) row.clone = request.clone->target;
  row.next_workspace = std::max(1, static_cast<int>(row.workspaces.size()));  // 0 is the primary one's
  row.cpus = request.cpus;
  row.memory_mib = request.memory_mib;
  row.env = std::move(request.env);
  row.labels = std::move(request.labels);
  row.protection = std::move(request.protection);
  row.auto_stop_s = request.auto_stop_s;
  row.machine_id = random_hex(32);
  row.created_at = row.last_used_at = store::now_ms();
  if (spare) spare->describe(row);

  SBX_CO_TRY(auto guard, co_await lock(row.id), "locking the new sandbox");
  if (auto inserted = insert(row, request.name); !inserted) {
    if (spare) spares_.give_back(std::move(spare));
    co_return std::unexpected(std::move(inserted.error()));
  }
  const auto made = co_await furnish(row, request, spare, progress);
  if (!made) {
    if (spare) co_await spares_.discard(std::move(spare));  // it has the sandbox's id and folders
    Error error = made.error();
    auto erased = co_await erase(row);
    (void)erased;  // the first error is the one to tell; the row stays for the next start if this failed
    co_return std::unexpected(std::move(error).while_doing("creating sandbox " + row.name));
  }
  busy.created(kind_of(row));
  co_return row;
}

Awaitable<Result<void>> Lifecycle::choose_template(store::Sandbox& row, const CreateRequest& request,
                                                   Progress progress) {
  SBX_CO_TRY(const auto choice, co_await artifacts_.template_for(request.image, row.cpus, row.memory_mib, progress),
             "choosing a template");
  row.template_id = choice.id;
  row.image_id = choice.image_id;
  row.accelerator = choice.accelerator;
  row.cpus = choice.cpus;
  row.memory_mib = choice.memory_mib;
  co_return store_.update(row);
}

// The runtime folder has its name from the id's beginning.
std::string Lifecycle::new_id() const {
  for (;;) {
    auto id = random_uuid();
    std::error_code error;
    if (!fs::exists(paths_.runtime(id), error)) return id;
  }
}

// With `wanted_name`, or else with the one derived from agent and workspace, and a number if that is taken.
Result<void> Lifecycle::insert(store::Sandbox& row, const std::string& wanted_name) {
  const bool derived = wanted_name.empty();
  const std::string primary = row.workspaces.empty() ? random_hex(6) : row.workspaces.front().on_host();
  const std::string base = derived ? derive_name(row.agent, primary) : wanted_name;
  row.name = base;
  for (int attempt = 2;; ++attempt) {
    auto inserted = store_.insert(row);
    if (inserted) return {};
    if (inserted.error().code != ErrorCode::kConflict) return inserted;
    const auto holder = SBX_TRY(store_.find(row.name), "looking for the holder of the name");
    const bool same_workspace = holder && holder->workspaces == row.workspaces;
    if (!derived || same_workspace || attempt > 99) {
      return fail(ErrorCode::kConflict, "sandbox \"" + row.name + "\" already exists" +
                                            (same_workspace ? " for this workspace" : "") + "; use 'sbx run --name " +
                                            row.name + "' to start it, or pass --name to create another");
    }
    const std::string suffix = "-" + std::to_string(attempt);
    row.name = base.substr(0, 63 - suffix.size()) + suffix;
  }
}

Awaitable<Result<void>> Lifecycle::erase(store::Sandbox row) {
  row.state = store::State::kRemoving;
  SBX_CO_CHECK(store_.update(row), "marking the sandbox as removed");
  co_await end_keeper(row.id, Ending::kKillMachine);
  const std::vector<fs::path> folders = {paths_.sandbox(row.id), paths_.runtime(row.id)};
  auto work = [folders]() -> Result<void> {
    for (const auto& folder : folders) {
      std::error_code error;
      fs::remove_all(folder, error);
      if (error) return fail(ErrorCode::kInternal, "removing " + folder.native() + ": " + error.message());
    }
    return {};
  };
  SBX_CO_CHECK(co_await run_blocking(pool_, std::move(work)), "removing the sandbox's files");
  SBX_CO_CHECK(co_await secrets_.forget_sandbox(row.id), "removing the sandbox's secrets");
  SBX_CO_CHECK(store_.remove(row.id), "removing the sandbox's row");
  locks_.erase(row.id);
  co_return Result<void>{};
}

Awaitable<Result<void>> Lifecycle::remove(std::string name, RemoveOptions options) {
  SBX_CO_TRY(auto row, require(name), "removing a sandbox");
  SBX_CO_TRY(auto guard, co_await lock(row.id), "waiting for the sandbox");
  SBX_CO_TRY(row, require(row.id), "removing a sandbox");
  if (!options.force && live_.contains(row.id)) {
    const auto view = co_await status(row.id);
    const auto sessions =
        std::max<std::int64_t>(int_field(view, "sessions"), live_.contains(row.id) ? live_[row.id]->sessions : 0);
    if (sessions > 0) {
      co_return fail(ErrorCode::kConflict, "sandbox '" + row.name + "' has " + std::to_string(sessions) +
                                               " active session(s); use --force to remove it all the same");
    }
  }
  co_return co_await erase(row);
}

}  // namespace sbx::sandbox
