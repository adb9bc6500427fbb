#include "guest/relay_progress.h"

#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <new>

namespace sbx::guest {

Result<RelayCounter> RelayCounter::make() {
  UniqueFd wake(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!wake.valid()) return fail_errno("eventfd", errno);
  void* memory = ::mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return fail_errno("mmap", errno);
  std::shared_ptr<Shared> shared(new (memory) Shared, [](Shared* at) { ::munmap(at, sizeof(Shared)); });
  return RelayCounter(std::move(shared), std::move(wake));
}

void RelayCounter::add(std::uint64_t delivered) const {
  shared_->delivered += delivered;
  if (!shared_->waited_for) return;
  const std::uint64_t one = 1;
  [[maybe_unused]] const ssize_t ignored = ::write(wake_->get(), &one, sizeof(one));
}

RelayProgress::RelayProgress(boost::asio::any_io_executor executor, RelayCounter counter)
    : executor_(executor), counter_(std::move(counter)), wake_(executor, ::fcntl(counter_.fd(), F_DUPFD_CLOEXEC, 3)) {}

Awaitable<bool> RelayProgress::reaches(std::uint64_t count, std::chrono::milliseconds limit) {
  if (ended_ || counter_.delivered() >= count) co_return true;
  const auto waiter = std::make_shared<Waiter>(count, executor_);
  waiters_.push_back(waiter);
  listen();
  const bool reached = co_await waiter->event.wait_for(limit);
  waiters_.remove(waiter);
  co_return reached;
}

void RelayProgress::end() {
  ended_ = true;
  look();
  boost::system::error_code ignored;
  wake_.cancel(ignored);
}

void RelayProgress::listen() {
  counter_.wake(true);
  look();
  if (listening_ || ended_) return;
  listening_ = true;
  wake_.async_wait(boost::asio::posix::stream_descriptor::wait_read, [this](boost::system::error_code error) {
    if (error) return;
    listening_ = false;
    std::uint64_t count = 0;
    [[maybe_unused]] const ssize_t ignored = ::read(counter_.fd(), &count, sizeof(count));
    look();
    if (!waiters_.empty()) return listen();
    counter_.wake(false);
  });
}

void RelayProgress::look() {
  for (const auto& waiter : waiters_) {
    if (ended_ || counter_.delivered() >= waiter->count) waiter->event.set();
  }
}

}  // namespace sbx::guest
