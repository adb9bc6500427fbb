#include "guest/reaper.h"

#include <signal.h>
#include <sys/wait.h>

namespace sbx::guest {

Reaper::Reaper(boost::asio::any_io_executor executor) : executor_(executor), signals_(executor, SIGCHLD) {}

std::shared_ptr<Child> Reaper::adopt(pid_t pid) {
  auto child = std::make_shared<Child>(executor_, pid);
  children_[pid] = child;
  return child;
}

void Reaper::reap() {
  int status = 0;
  for (pid_t pid = 0; (pid = ::waitpid(-1, &status, WNOHANG)) > 0;) {
    const auto found = children_.find(pid);
    if (found == children_.end()) continue;
    found->second->wait_status = status;
    found->second->ended.set();
    children_.erase(found);
  }
}

Awaitable<void> Reaper::run(std::function<void()> after_each_batch) {
  for (;;) {
    reap();
    after_each_batch();
    co_await signals_.async_wait(kNoThrow);
  }
}

}  // namespace sbx::guest
