// RelayProgress: how many notifications the files relay, a process of its own, has given to the kernel: a counter in
// memory that both share, and an eventfd by which the relay wakes who waits.
#pragma once

#include <atomic>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <cstdint>
#include <list>
#include <memory>

#include "base/result.h"
#include "base/unique_fd.h"
#include "guest/async_event.h"

namespace sbx::guest {

// The relay's side; any thread.
class RelayCounter {
 public:
  static Result<RelayCounter> make();

  void add(std::uint64_t delivered) const;
  std::uint64_t delivered() const { return shared_->delivered; }
  int fd() const { return wake_->get(); }
  // Whether add() is to wake anyone from now on. Look at delivered() after this, not before.
  void wake(bool wanted) const { shared_->waited_for = wanted; }

 private:
  struct Shared {
    std::atomic<std::uint64_t> delivered = 0;
    std::atomic<bool> waited_for = false;
  };
  static_assert(std::atomic<std::uint64_t>::is_always_lock_free && std::atomic<bool>::is_always_lock_free);

  RelayCounter(std::shared_ptr<Shared> shared, UniqueFd wake)
      : shared_(std::move(shared)), wake_(std::make_shared<UniqueFd>(std::move(wake))) {}
  std::shared_ptr<Shared> shared_;
  std::shared_ptr<UniqueFd> wake_;
};

// The event loop's side. Thread safety: none; the event loop only. Must outlive who waits (hold a shared_ptr).
class RelayProgress {
 public:
  RelayProgress(boost::asio::any_io_executor executor, RelayCounter counter);

  // Until the relay has delivered this many, or ended, or `limit` is over (then false).
  Awaitable<bool> reaches(std::uint64_t count, std::chrono::milliseconds limit);
  // The relay is gone: nobody waits any longer.
  void end();

 private:
  struct Waiter {
    Waiter(std::uint64_t the_count, boost::asio::any_io_executor executor)
        : count(the_count), event(std::move(executor)) {}
    std::uint64_t count;
    AsyncEvent event;
  };
  void listen();
  void look();

  boost::asio::any_io_executor executor_;
  RelayCounter counter_;
  boost::asio::posix::stream_descriptor wake_;
  std::list<std::shared_ptr<Waiter>> waiters_;
  bool listening_ = false;
  bool ended_ = false;
};

}  // namespace sbx::guest
