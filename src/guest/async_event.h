// AsyncEvent and AsyncMutex: the two ways in which coroutines of the one event loop wait for each other.
// Thread safety: none; executor of the event loop only. Both must outlive their waiters (hold a shared_ptr to the
// owner).
#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <chrono>
#include <deque>
#include <list>
#include <memory>

namespace sbx::guest {

template <typename T>
using Awaitable = boost::asio::awaitable<T>;

// Completes with a tuple that starts with the error code instead of throwing.
inline constexpr auto kNoThrow = boost::asio::as_tuple(boost::asio::use_awaitable);

inline Awaitable<void> sleep_for(boost::asio::any_io_executor executor, std::chrono::milliseconds duration) {
  boost::asio::steady_timer timer(executor, duration);
  co_await timer.async_wait(kNoThrow);
}

// Set once, and stays set.
class AsyncEvent {
 public:
  explicit AsyncEvent(boost::asio::any_io_executor executor) : executor_(std::move(executor)) {}
  AsyncEvent(const AsyncEvent&) = delete;
  AsyncEvent& operator=(const AsyncEvent&) = delete;

  void set() {
    set_ = true;
    for (auto* waiter : waiters_) waiter->cancel();
  }
  bool is_set() const { return set_; }

  Awaitable<void> wait() {
    while (!set_) co_await wait_for(std::chrono::hours(24));
  }
  // Whether the event was set within `limit`.
  Awaitable<bool> wait_for(std::chrono::milliseconds limit) {
    if (set_) co_return true;
    boost::asio::steady_timer timer(executor_, limit);
    const auto place = waiters_.insert(waiters_.end(), &timer);
    co_await timer.async_wait(kNoThrow);
    waiters_.erase(place);
    co_return set_;
  }

 private:
  boost::asio::any_io_executor executor_;
  std::list<boost::asio::steady_timer*> waiters_;
  bool set_ = false;
};

// First come, first served. Use through lock() and the Guard it returns.
class AsyncMutex {
 public:
  class Guard {
   public:
    explicit Guard(AsyncMutex& mutex) : mutex_(&mutex) {}
    Guard(Guard&& other) noexcept : mutex_(std::exchange(other.mutex_, nullptr)) {}
    Guard& operator=(Guard&&) = delete;
    ~Guard() {
      if (mutex_ != nullptr) mutex_->unlock();
    }

   private:
    AsyncMutex* mutex_;
  };

  explicit AsyncMutex(boost::asio::any_io_executor executor) : executor_(std::move(executor)) {}

  Awaitable<Guard> lock() {
    if (locked_) {
      const auto turn = std::make_shared<AsyncEvent>(executor_);
      waiting_.push_back(turn);
      co_await turn->wait();
    }
    locked_ = true;  // handed over still locked by unlock()
    co_return Guard(*this);
  }

 private:
  void unlock() {
    if (waiting_.empty()) {
      locked_ = false;
      return;
    }
    waiting_.front()->set();
    waiting_.pop_front();
  }

  boost::asio::any_io_executor executor_;
  std::deque<std::shared_ptr<AsyncEvent>> waiting_;
  bool locked_ = false;
};

}  // namespace sbx::guest
