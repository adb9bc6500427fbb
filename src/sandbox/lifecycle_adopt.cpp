#include <signal.h>

#include <boost/asio/detached.hpp>
#include <set>

#include "sandbox/json_fields.h"
#include "sandbox/keeper_process.h"
#include "sandbox/lifecycle.h"
#include "store/clock.h"

namespace sbx::sandbox {
namespace asio = boost::asio;
namespace fs = std::filesystem;
using namespace std::chrono_literals;

namespace {
constexpr auto kAdoptDeadline = 20s;
// Before this, "idle since" would be 1973: a number below is a length of time, one above a wall-clock time.
constexpr std::int64_t kFirstWallClock = 100'000'000'000;
}  // namespace

Awaitable<void> Lifecycle::adopt() {
  auto rows = store_.all();
  if (!rows) co_return;
  for (const auto& row : *rows) co_await adopt_one(row);
  co_await end_strangers(*rows);
}

Awaitable<void> Lifecycle::adopt_one(store::Sandbox row) {
  auto process = open_process(static_cast<pid_t>(row.keeper_pid), row.keeper_start);
  if (!process) {
    auto ended = co_await end_unrecorded_keeper(paths_.runtime(row.id));
    if (!ended) co_return;  // what holds it is left alone, and the row as it is
  }
  const bool half_made = row.state == store::State::kCreating || row.state == store::State::kRemoving;
  if (half_made) {
    if (process) {
      auto live = watch(row, std::move(*process), nullptr);
      kill_process(live->pidfd->native_handle(), SIGKILL);
      co_await live->ended.wait();
    }
    auto erased = co_await erase(row);
    (void)erased;
    co_return;
  }
  if (!process) {
    if (row.state == store::State::kRunning) mark_stopped(row);
    co_return;
  }
  auto client = KeeperClient::connect(loop_.get_executor(), paths_.runtime(row.id) / "keeper.sock");
  Result<nlohmann::json> view = fail(ErrorCode::kUnavailable, "no connection");
  if (client) view = co_await (*client)->call("GET", "/status", nullptr, kAdoptDeadline);
  const bool ours = view && text_field(*view, "sandbox_id") == row.id;
  auto live = watch(row, std::move(*process), client ? *client : nullptr);
  if (ours) {
    live->gateway = link_gateway(row);
    row.state = store::State::kRunning;
    (void)store_.update(row);
    co_await adopt_ports(row);
    co_return;
  }
  // It was still starting, or does not answer: its start was nobody's success.
  kill_process(live->pidfd->native_handle(), SIGKILL);
  co_await live->ended.wait();
  mark_stopped(row);
}

// Keepers that no row knows of: there is nothing they could be of use to.
Awaitable<void> Lifecycle::end_strangers(std::vector<store::Sandbox> rows) {
  std::set<fs::path> known;
  for (const auto& row : rows) known.insert(paths_.runtime(row.id));
  std::error_code error;
  // Spares of a daemon that was killed: some may be on their way still, and answer nobody.
  std::set<fs::path> spares;
  for (const auto& entry : fs::directory_iterator(paths_.sandboxes(), error)) {
    const bool spare = fs::exists(entry.path() / Spare::kMark, error);
    if (spare && !known.contains(paths_.runtime(entry.path().filename()))) spares.insert(entry.path());
  }
  for (const auto& folder : spares) {
    const auto runtime = paths_.runtime(folder.filename());
    auto ended = co_await end_unrecorded_keeper(runtime);
    if (!ended) continue;
    std::error_code ignored;
    fs::remove_all(runtime, ignored);
    fs::remove_all(folder, ignored);
  }
  for (const auto& entry : fs::directory_iterator(paths_.run, error)) {
    if (!fs::is_directory(entry.symlink_status()) || known.contains(entry.path())) continue;
    auto client = KeeperClient::connect(loop_.get_executor(), entry.path() / "keeper.sock");
    if (client) {
      nlohmann::json body;
      body["mode"] = "kill";
      auto answer = co_await (*client)->call("POST", "/stop", body, 10s);
      if (!answer) continue;
    }
    auto ended = co_await end_unrecorded_keeper(entry.path());
    if (!ended) continue;
    std::error_code ignored;
    fs::remove_all(entry.path(), ignored);
  }
}

Awaitable<bool> Lifecycle::is_idle(store::Sandbox row) {
  const auto found = live_.find(row.id);
  if (row.auto_stop_s <= 0 || found == live_.end() || found->second->sessions > 0) co_return false;
  const auto view = co_await status(row.id);
  if (!view.is_object() || int_field(view, "sessions") > 0 || int_field(view, "detached") > 0) co_return false;
  std::int64_t idle = int_field(view, "idle_since_ms", -1);
  if (idle < 0) co_return false;
  if (idle > kFirstWallClock) idle = store::now_ms() - idle;
  co_return idle >= row.auto_stop_s * 1000;
}

Awaitable<void> Lifecycle::watch_idle() {
  for (;;) {
    asio::steady_timer timer(loop_, 2s);
    boost::system::error_code error;
    co_await timer.async_wait(asio::redirect_error(asio::use_awaitable, error));
    if (error) co_return;
    auto rows = store_.all();
    if (!rows) continue;
    for (const auto& row : *rows) {
      if (row.state != store::State::kRunning) continue;
      const bool idle = co_await is_idle(row);
      if (!idle) continue;
      auto guard = co_await lock(row.id);
      auto current = store_.find(row.id);
      if (!current || !*current) continue;
      // A command may have come in while we waited for the lock.
      const bool still_idle = co_await is_idle(**current);
      if (!still_idle) continue;
      auto stopped = co_await stop_locked(**current);
      (void)stopped;
    }
  }
}

}  // namespace sbx::sandbox
