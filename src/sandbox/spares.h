// Spares: clones that have been started before anybody asks for a sandbox, so that a creation only has to give one its
// identity and its workspaces (docs/architecture.md, "Spares").
//
// A spare has no row, so nobody sees it. It is a keeper that was launched as one, its machine loaded and paused;
// nothing of a sandbox's has ever been in it, and its gateway and file server start when it is taken. It ends with the
// daemon: a keeper that is a spare watches a pipe that the daemon holds, and what a killed daemon leaves of it the next
// one removes. One event loop.
#pragma once

#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>

#include "base/unique_fd.h"
#include "sandbox/artifacts.h"
#include "sandbox/async.h"
#include "sandbox/keeper_client.h"
#include "sandbox/spare_plan.h"
#include "store/paths.h"
#include "store/sandbox_store.h"

namespace sbx::sandbox {

// One spare. Owns the keeper and the folders: destroyed, it kills the one, waits for its end, and removes the others.
class Spare {
 public:
  Spare() = default;
  ~Spare();
  Spare(const Spare&) = delete;
  Spare& operator=(const Spare&) = delete;

  // In the sandbox's folder, beside the disk, for as long as this is a spare: "starting", then "ready".
  static constexpr const char* kMark = "spare";

  // What the row of its sandbox-to-be says of it.
  void describe(store::Sandbox& row) const;
  bool alive() const;
  // Now the caller's: a descriptor of the keeper's process.
  UniqueFd release();

  std::string id;  // the sandbox's, once it is one
  TemplateChoice kind;
  unsigned jail_slot = 0;
  bool has_gateway = false;
  std::shared_ptr<KeeperClient> client;

 private:
  friend class Spares;
  std::filesystem::path runtime_folder_;
  std::filesystem::path sandbox_folder_;
  pid_t pid_ = 0;  // 0: not started, ended and reaped, or released
  std::int64_t start_time_ = 0;
  std::shared_ptr<boost::asio::posix::stream_descriptor> pidfd_;
  UniqueFd leash_;                       // the end of its stdout that it watches
  std::shared_ptr<void> slot_reserved_;  // until a row has the slot, or the uids are nobody's any more
};

// From the environment: SBX_SPARES=N, at most N at a time; unset or 0: none.
SparePlan::Limits spare_limits();

class Spares {
 public:
  Spares(boost::asio::io_context& loop, store::Paths paths, store::SandboxStore& store, Artifacts& artifacts,
         boost::asio::thread_pool& pool, SparePlan::Limits limits);

  // Makes and drops them; runs for ever (or not at all, if there are to be none).
  Awaitable<void> run();
  // One that is ready for such a request, or null.
  std::unique_ptr<Spare> take(const std::string& image, std::int64_t cpus, std::int64_t memory_mib);
  // One that was taken and not used.
  void give_back(std::unique_ptr<Spare> spare);
  void adopted(const TemplateChoice& kind) { plan_.adopted(kind); }
  // One of this kind could not be made, or not be made a sandbox of; the first in a row is logged.
  void note_failure(const TemplateChoice& kind, const std::string& why);
  // Kills it; returns when its process and its folders are gone.
  Awaitable<void> discard(std::unique_ptr<Spare> spare);
  // No spare of this template is there when this returns, and none is made until it is asked for again.
  Awaitable<void> forget(std::string template_id);
  // Jail slots that no row tells of.
  const std::set<unsigned>& slots() const { return *slots_; }

  // While one lives something is being created or started, and no spare is made.
  class Busy;
  Busy busy();

 private:
  // What outlives the daemon's end in the frames of coroutines.
  struct Shared {
    Shared(boost::asio::io_context& loop, SparePlan::Limits limits) : plan(limits), wake(loop) {}
    SparePlan plan;
    boost::asio::steady_timer wake;
  };
  Awaitable<void> make(TemplateChoice kind);
  Awaitable<Result<void>> bring_up(Spare& spare);
  Result<void> prepare(Spare& spare);
  Result<UniqueFd> spawn(Spare& spare);
  Awaitable<void> watch(std::string id, std::shared_ptr<boost::asio::posix::stream_descriptor> pidfd);
  void hold(std::unique_ptr<Spare> spare);

  boost::asio::io_context& loop_;
  store::Paths paths_;
  store::SandboxStore& store_;
  Artifacts& artifacts_;
  boost::asio::thread_pool& pool_;
  SparePlan::Limits limits_;
  std::shared_ptr<Shared> shared_;
  SparePlan& plan_;
  std::shared_ptr<std::set<unsigned>> slots_ = std::make_shared<std::set<unsigned>>();
  std::shared_ptr<AsyncMutex> making_;
  std::map<std::string, std::unique_ptr<Spare>> held_;  // by template id
};

class Spares::Busy {
 public:
  explicit Busy(std::shared_ptr<Shared> shared) : shared_(std::move(shared)) { shared_->plan.create_began(); }
  Busy(const Busy&) = delete;
  Busy& operator=(const Busy&) = delete;
  ~Busy() {
    shared_->plan.create_ended(kind_, SparePlan::Clock::now());
    shared_->wake.cancel();
  }
  // It was a sandbox of this kind.
  void created(TemplateChoice kind) { kind_ = std::move(kind); }

 private:
  std::shared_ptr<Shared> shared_;
  std::optional<TemplateChoice> kind_;
};
inline Spares::Busy Spares::busy() { return Busy(shared_); }

// The template and the size that a sandbox has.
TemplateChoice kind_of(const store::Sandbox& row);

}  // namespace sbx::sandbox
