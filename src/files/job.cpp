#include "files/job.h"

#include <sys/eventfd.h>
#include <unistd.h>

namespace sbx::files {

std::string Job::run() {
  Reply reply;
  reply.clear();
  const int error = work(reply);
  return std::move(reply).take(unique, error);
}

Workers::Workers(unsigned threads) : ready_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  for (unsigned i = 0; i < threads; ++i) threads_.emplace_back([this] { serve(); });
}

Workers::~Workers() {
  {
    const std::lock_guard lock(mutex_);
    ending_ = true;
  }
  changed_.notify_all();
  for (auto& thread : threads_) thread.join();
}

void Workers::add(Job job) {
  {
    const std::lock_guard lock(mutex_);
    waiting_.push_back(std::move(job));
  }
  changed_.notify_one();
}

std::deque<std::string> Workers::take_finished() {
  std::uint64_t count = 0;
  [[maybe_unused]] const ssize_t ignored = ::read(ready_.get(), &count, sizeof(count));
  const std::lock_guard lock(mutex_);
  return std::exchange(finished_, {});
}

void Workers::serve() {
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [this] { return ending_ || !waiting_.empty(); });
    if (ending_) return;
    Job job = std::move(waiting_.front());
    waiting_.pop_front();
    lock.unlock();
    std::string reply = job.run();
    job = {};
    lock.lock();
    finished_.push_back(std::move(reply));
    const std::uint64_t one = 1;
    [[maybe_unused]] const ssize_t ignored = ::write(ready_.get(), &one, sizeof(one));
  }
}

}  // namespace sbx::files
