// Creation by means of a spare clone.
#include "base/file.h"
#include "sandbox/launch_spec.h"
#include "sandbox/lifecycle.h"
#include "store/clock.h"

namespace sbx::sandbox {
namespace fs = std::filesystem;
using namespace std::chrono_literals;

namespace {
constexpr auto kAdoptionDeadline = 40s;
}

// With a spare if there is one and it is of use; without it the ordinary way, from the beginning.
Awaitable<Result<void>> Lifecycle::launch_new(store::Sandbox& row, std::unique_ptr<Spare> spare, store::State then) {
  if (spare) {
    const auto kind = spare->kind;
    const auto adopted = co_await adopt_spare(row, std::move(spare), then);
    if (adopted) {
      spares_.adopted(kind);
      co_return Result<void>{};
    }
    spares_.note_failure(kind, adopted.error().describe());
    std::error_code error;
    fs::remove_all(paths_.sandbox(row.id), error);
    row.keeper_pid = row.keeper_start = 0;
  }
  co_return co_await launch(row, "clone", then);
}

// The row is there already, with the keeper in it: a daemon that finds it half made ends that.
Awaitable<Result<void>> Lifecycle::adopt_spare(store::Sandbox& row, std::unique_ptr<Spare> spare, store::State then) {
  const auto client = spare->client;
  const bool has_gateway = spare->has_gateway;
  const fs::path runtime = paths_.runtime(row.id);
  Result<void> adopted = store_.give_jail_slot(row.id, spare->jail_slot);
  auto live = watch(row, spare->release(), client);
  auto facts = co_await guest_facts(row);
  if (adopted && !facts) adopted = std::unexpected(facts.error());
  if (adopted) adopted = offer_ssh_agent(row);
  if (adopted) {
    auto adoption = adoption_of(row, *facts);
    adopted = write_file_atomically(runtime / "adopt.json", adoption.file);
    if (adopted && has_gateway) live->gateway = link_gateway(row);  // configured while the guest gets its identity
    if (adopted) {
      const auto answer = co_await client->call("POST", "/adopt", std::move(adoption.request), kAdoptionDeadline);
      if (!answer) adopted = std::unexpected(answer.error());
    }
  }
  if (!adopted) {
    co_await end_keeper(row.id, Ending::kAtOnce);
    co_return adopted;
  }
  std::error_code ignored;
  fs::remove(paths_.sandbox(row.id) / Spare::kMark, ignored);
  row.state = then;
  row.reason.clear();
  row.started_at = row.last_used_at = store::now_ms();
  co_return store_.update(row);
}

}  // namespace sbx::sandbox
