// Deadline: calls a function once if it still exists at a given time. One executor; header only.
#pragma once

#include <boost/asio/steady_timer.hpp>
#include <chrono>
#include <functional>
#include <memory>

namespace sbx::gateway {

class Deadline {
 public:
  Deadline(const boost::asio::any_io_executor& executor, std::chrono::milliseconds after, std::function<void()> expire)
      : expire_(std::make_shared<std::function<void()>>(std::move(expire))), timer_(executor, after) {
    timer_.async_wait([expire = expire_](const boost::system::error_code& error) {
      // A timer that has fired cannot be taken back: the function is emptied instead.
      if (error || !*expire) return;
      auto call = std::exchange(*expire, nullptr);
      call();
    });
  }
  ~Deadline() { cancel(); }
  Deadline(const Deadline&) = delete;
  Deadline& operator=(const Deadline&) = delete;

  void cancel() {
    if (!*expire_) return;
    *expire_ = nullptr;
    timer_.cancel();
  }

 private:
  std::shared_ptr<std::function<void()>> expire_;
  boost::asio::steady_timer timer_;
};

}  // namespace sbx::gateway
