// Small helpers for coroutines on the daemon's one event loop.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/thread_pool.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <memory>
#include <type_traits>
#include <utility>

#include "base/result.h"

namespace sbx::sandbox {

template <typename T>
using Awaitable = boost::asio::awaitable<T>;

// Runs `work` on a thread of the pool; the coroutine goes on where it was.
template <typename F>
Awaitable<std::invoke_result_t<F>> run_blocking(boost::asio::thread_pool& pool, F work) {
  using R = std::invoke_result_t<F>;
  auto task = [work = std::move(work)]() mutable -> Awaitable<R> { co_return work(); };
  co_return co_await boost::asio::co_spawn(pool, std::move(task), boost::asio::use_awaitable);
}

// Something that happens once; any number of coroutines wait for it. One event loop.
class Event {
 public:
  explicit Event(boost::asio::any_io_executor executor)
      : timer_(executor, boost::asio::steady_timer::time_point::max()) {}
  void set() {
    happened_ = true;
    timer_.cancel();
  }
  bool happened() const { return happened_; }
  Awaitable<void> wait() {
    boost::system::error_code ignored;
    while (!happened_) co_await timer_.async_wait(boost::asio::redirect_error(boost::asio::use_awaitable, ignored));
  }

 private:
  boost::asio::steady_timer timer_;
  bool happened_ = false;
};

// A lock held across co_await. One event loop; not recursive; no fairness promised.
class AsyncMutex : public std::enable_shared_from_this<AsyncMutex> {
 public:
  class Guard {
   public:
    explicit Guard(std::shared_ptr<AsyncMutex> mutex) : mutex_(std::move(mutex)) {}
    Guard(Guard&&) noexcept = default;
    Guard& operator=(Guard&&) = delete;
    ~Guard() {
      if (!mutex_) return;
      mutex_->locked_ = false;
      mutex_->timer_.cancel_one();
    }

   private:
    std::shared_ptr<AsyncMutex> mutex_;
  };

  explicit AsyncMutex(boost::asio::any_io_executor executor)
      : timer_(executor, boost::asio::steady_timer::time_point::max()) {}
  Awaitable<Guard> lock() {
    auto self = shared_from_this();
    boost::system::error_code ignored;
    while (locked_) co_await timer_.async_wait(boost::asio::redirect_error(boost::asio::use_awaitable, ignored));
    locked_ = true;
    co_return Guard(self);
  }

 private:
  boost::asio::steady_timer timer_;
  bool locked_ = false;
};

}  // namespace sbx::sandbox
