#include "sandbox/spares.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>

#include <boost/asio/detached.hpp>
#include <charconv>
#include <cstring>

#include "base/file.h"
#include "base/random.h"
#include "sandbox/daemon_log.h"
#include "sandbox/keeper_process.h"
#include "sandbox/launch_spec.h"
#include "vm/jail.h"
#include "vm/machine_process.h"

namespace sbx::sandbox {
namespace asio = boost::asio;
namespace fs = std::filesystem;
using namespace std::chrono_literals;

namespace {

constexpr auto kMakeDeadline = 60s;
constexpr auto kEndDeadline = 10s;
// How often it is looked whether there is something to make or to give up, while there is something to look at.
constexpr auto kTick = 1s;

void remove_folders(const fs::path& runtime, const fs::path& sandbox) {
  std::error_code ignored;
  fs::remove_all(runtime, ignored);
  fs::remove_all(sandbox, ignored);  // with the mark, which is the last that tells what this is
}

Result<void> mark(const fs::path& sandbox_folder, std::string_view how) {
  return write_file_atomically(sandbox_folder / Spare::kMark, std::string(how));
}

}  // namespace

SparePlan::Limits spare_limits() {
  SparePlan::Limits limits;
  const char* text = std::getenv("SBX_SPARES");
  if (text == nullptr) return limits;
  (void)std::from_chars(text, text + std::strlen(text), limits.most);
  return limits;
}

TemplateChoice kind_of(const store::Sandbox& row) {
  TemplateChoice kind;
  kind.id = row.template_id;
  kind.image_id = row.image_id;
  kind.accelerator = row.accelerator;
  kind.cpus = row.cpus;
  kind.memory_mib = row.memory_mib;
  return kind;
}

// Where nothing waits on the event loop any more; else see Spares::discard().
Spare::~Spare() {
  if (pid_ > 0) {
    kill_process(pidfd_->native_handle(), SIGKILL);
    pollfd ended{pidfd_->native_handle(), POLLIN, 0};
    (void)::poll(&ended, 1, static_cast<int>(std::chrono::milliseconds(kEndDeadline).count()));
    reap_keeper(pid_);
  }
  if (!runtime_folder_.empty()) remove_folders(runtime_folder_, sandbox_folder_);
}

void Spare::describe(store::Sandbox& row) const {
  row.template_id = kind.id;
  row.image_id = kind.image_id;
  row.accelerator = kind.accelerator;
  row.cpus = kind.cpus;
  row.memory_mib = kind.memory_mib;
  row.keeper_pid = pid_;
  row.keeper_start = start_time_;
}

bool Spare::alive() const {
  if (pid_ <= 0 || !client || !client->alive()) return false;
  pollfd ended{pidfd_->native_handle(), POLLIN, 0};
  return ::poll(&ended, 1, 0) == 0;
}

UniqueFd Spare::release() {
  pid_ = 0;
  runtime_folder_.clear();
  return UniqueFd(pidfd_->release());
}

Spares::Spares(asio::io_context& loop, store::Paths paths, store::SandboxStore& store, Artifacts& artifacts,
               asio::thread_pool& pool, SparePlan::Limits limits)
    : loop_(loop),
      paths_(std::move(paths)),
      store_(store),
      artifacts_(artifacts),
      pool_(pool),
      limits_(limits),
      shared_(std::make_shared<Shared>(loop, limits)),
      plan_(shared_->plan),
      making_(std::make_shared<AsyncMutex>(loop.get_executor())) {}

Awaitable<void> Spares::run() {
  if (limits_.most == 0) co_return;
  for (;;) {
    boost::system::error_code ignored;
    auto& wake = shared_->wake;
    if (plan_.at_rest())
      wake.expires_at(asio::steady_timer::time_point::max());
    else
      wake.expires_after(kTick);
    co_await wake.async_wait(asio::redirect_error(asio::use_awaitable, ignored));
    const auto available = available_memory().value_or(0);
    const auto drop = plan_.to_drop(SparePlan::Clock::now(), available);
    for (const auto& id : drop) {
      auto held = held_.extract(id);
      if (held.empty()) continue;
      plan_.gone(held.mapped()->kind);
      co_await discard(std::move(held.mapped()));
    }
    const auto kind = plan_.to_make(SparePlan::Clock::now(), available);
    if (kind) co_await make(*kind);
  }
}

Awaitable<void> Spares::make(TemplateChoice kind) {
  auto guard = co_await making_->lock();
  auto spare = std::make_unique<Spare>();
  spare->kind = std::move(kind);
  auto made = prepare(*spare);
  if (made) made = co_await bring_up(*spare);
  if (!made) {
    note_failure(spare->kind, made.error().describe());
    co_await discard(std::move(spare));
  } else if (!plan_.knows(spare->kind.id) || held_.contains(spare->kind.id)) {
    co_await discard(std::move(spare));  // its template is to go, or one that was taken has been given back
  } else {
    hold(std::move(spare));
  }
}

void Spares::note_failure(const TemplateChoice& kind, const std::string& why) {
  if (!plan_.failed(kind, SparePlan::Clock::now())) return;
  log_line({{"message", "a spare clone failed"}, {"template", kind.id}, {"error", why}});
}

void Spares::hold(std::unique_ptr<Spare> spare) {
  plan_.made(spare->kind);
  asio::co_spawn(loop_, watch(spare->id, spare->pidfd_), asio::detached);
  held_[spare->kind.id] = std::move(spare);
}

// One that ends by itself.
Awaitable<void> Spares::watch(std::string id, std::shared_ptr<asio::posix::stream_descriptor> pidfd) {
  boost::system::error_code error;
  co_await pidfd->async_wait(asio::posix::stream_descriptor::wait_read,
                             asio::redirect_error(asio::use_awaitable, error));
  if (error) co_return;
  for (auto& [kind, spare] : held_) {
    if (spare->id != id) continue;
    auto ended = held_.extract(kind);
    note_failure(ended.mapped()->kind, "its keeper has ended");
    co_await discard(std::move(ended.mapped()));
    co_return;
  }
}

Result<void> Spares::prepare(Spare& spare) {
  std::error_code error;
  do {
    spare.id = random_uuid();
  } while (fs::exists(paths_.runtime(spare.id), error));
  spare.jail_slot = SBX_TRY(store_.free_jail_slot(vm::kJailSlots, *slots_), "making a spare");
  slots_->insert(spare.jail_slot);
  spare.slot_reserved_ =
      std::shared_ptr<void>(nullptr, [slots = slots_, slot = spare.jail_slot](void*) { slots->erase(slot); });
  spare.runtime_folder_ = paths_.runtime(spare.id);
  spare.sandbox_folder_ = paths_.sandbox(spare.id);
  SBX_CHECK(make_folders(spare.sandbox_folder_, 0700), "making a spare");
  // From here on a daemon that finds it knows what it is.
  SBX_CHECK(mark(spare.sandbox_folder_, "starting"), "making a spare");
  return make_folders(spare.runtime_folder_, 0700);
}

Result<UniqueFd> Spares::spawn(Spare& spare) {
  LaunchFolders folders;
  folders.runtime = spare.runtime_folder_;
  folders.sandbox = spare.sandbox_folder_;
  folders.template_folder = paths_.templates() / spare.kind.id;
  folders.image = paths_.images() / spare.kind.image_id;
  GuestFacts facts;
  facts.jail_slot = static_cast<int>(spare.jail_slot);
  const auto gateway = SBX_TRY(vm::listen_in(folders.runtime, "gateway.sock"), "starting the keeper");
  std::error_code error;
  spare.has_gateway = fs::exists(artifacts_.keeper_program().parent_path() / "sbx-gateway", error);
  if (spare.has_gateway) facts.gateway_fd = gateway.get();
  store::Sandbox row;
  row.id = spare.id;
  row.name = "spare";
  spare.describe(row);
  auto keeper = SBX_TRY(spawn_keeper(artifacts_.keeper_program(), spare_spec(row, folders, facts), facts.gateway_fd,
                                     folders.runtime / "keeper.log"),
                        "starting the keeper");
  spare.pid_ = keeper.pid;
  spare.start_time_ = keeper.start_time;
  spare.pidfd_ = std::make_shared<asio::posix::stream_descriptor>(loop_, keeper.pidfd.release());
  spare.leash_.reset(::fcntl(keeper.output.get(), F_DUPFD_CLOEXEC, 3));
  if (!spare.leash_.valid()) return fail_errno("duplicating a descriptor", errno);
  return std::move(keeper.output);
}

Awaitable<Result<void>> Spares::bring_up(Spare& spare) {
  auto output = spawn(spare);
  if (!output) co_return std::unexpected(std::move(output.error()));
  SBX_CO_CHECK(co_await wait_until_ready(std::move(*output), kMakeDeadline, spare.runtime_folder_ / "keeper.log"),
               "starting a spare");
  SBX_CO_TRY(spare.client, KeeperClient::connect(loop_.get_executor(), spare.runtime_folder_ / "keeper.sock"),
             "starting a spare");
  co_return mark(spare.sandbox_folder_, "ready");
}

std::unique_ptr<Spare> Spares::take(const std::string& image, std::int64_t cpus, std::int64_t memory_mib) {
  if (held_.empty()) return nullptr;
  const auto kind = artifacts_.ready_template(image, cpus, memory_mib);
  if (!kind) return nullptr;
  const auto found = held_.find(kind->id);
  // One that is ending is its watcher's.
  if (found == held_.end() || found->second->kind != *kind || !found->second->alive()) return nullptr;
  auto spare = std::move(found->second);
  held_.erase(found);
  plan_.gone(spare->kind);
  return spare;
}

void Spares::give_back(std::unique_ptr<Spare> spare) {
  if (held_.contains(spare->kind.id) || !plan_.knows(spare->kind.id) || !spare->alive()) {
    asio::co_spawn(loop_, discard(std::move(spare)), asio::detached);
    return;
  }
  plan_.made(spare->kind);
  held_[spare->kind.id] = std::move(spare);
}

Awaitable<void> Spares::discard(std::unique_ptr<Spare> spare) {
  if (spare->pid_ > 0) {
    kill_process(spare->pidfd_->native_handle(), SIGKILL);
    boost::system::error_code ignored;
    co_await spare->pidfd_->async_wait(asio::posix::stream_descriptor::wait_read,
                                       asio::redirect_error(asio::use_awaitable, ignored));
    reap_keeper(std::exchange(spare->pid_, 0));
  }
  auto remove = [runtime = std::exchange(spare->runtime_folder_, {}), sandbox = spare->sandbox_folder_] {
    if (!runtime.empty()) remove_folders(runtime, sandbox);
    return true;
  };
  co_await run_blocking(pool_, std::move(remove));
}

Awaitable<void> Spares::forget(std::string template_id) {
  plan_.forget(template_id);
  const auto guard = co_await making_->lock();  // one that is being made is given up once it is
  auto held = held_.extract(template_id);
  if (!held.empty()) co_await discard(std::move(held.mapped()));
}

}  // namespace sbx::sandbox
