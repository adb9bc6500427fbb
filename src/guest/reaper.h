// Reaper: PID 1's duty. Every child is waited for here, whether we started it or it was orphaned.
// Thread safety: none; the event loop only.
#pragma once

#include <sys/types.h>

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/signal_set.hpp>
#include <functional>
#include <map>
#include <memory>

#include "guest/async_event.h"

namespace sbx::guest {

struct Child {
  Child(boost::asio::any_io_executor executor, pid_t process) : pid(process), ended(std::move(executor)) {}
  const pid_t pid;
  AsyncEvent ended;
  int wait_status = 0;  // as of waitpid(2), once ended
};

class Reaper {
 public:
  explicit Reaper(boost::asio::any_io_executor executor);

  // Runs for ever. `after_each_batch` is called after some children have been reaped.
  Awaitable<void> run(std::function<void()> after_each_batch);
  // To be called before the coroutine that made the child next suspends, or its end could be missed.
  std::shared_ptr<Child> adopt(pid_t pid);

 private:
  void reap();

  boost::asio::any_io_executor executor_;
  boost::asio::signal_set signals_;
  std::map<pid_t, std::shared_ptr<Child>> children_;
};

}  // namespace sbx::guest
