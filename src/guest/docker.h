// Docker: the supervised dockerd (which brings its own containerd), in the cgroup /services. Restarted with a back-off;
// its output is in /var/log/dockerd.log. Thread safety: none; the event loop only.
#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <chrono>
#include <memory>
#include <string_view>

#include "base/result.h"
#include "guest/async_event.h"
#include "guest/cgroups.h"
#include "guest/reaper.h"

namespace sbx::guest {

class Docker {
 public:
  enum class State { kOff, kStarting, kReady, kFailed };

  Docker(boost::asio::any_io_executor executor, Reaper& reaper, Cgroups& cgroups)
      : executor_(executor), reaper_(reaper), cgroups_(cgroups), stopping_(executor) {}

  // Instead of run(): there will be no dockerd.
  void disable() { state_ = State::kOff; }
  // Runs until stop(). kOff at once if there is no dockerd.
  Awaitable<void> run();
  // SIGTERM, and SIGKILL after `deadline`.
  Awaitable<void> stop(std::chrono::milliseconds deadline);

  State state() const { return state_; }
  std::string_view state_word() const;

 private:
  Result<void> start();
  Awaitable<void> watch_readiness(std::shared_ptr<Child> child);
  Awaitable<bool> answers_ping();

  boost::asio::any_io_executor executor_;
  Reaper& reaper_;
  Cgroups& cgroups_;
  AsyncEvent stopping_;
  std::shared_ptr<Child> child_;
  State state_ = State::kStarting;  // from the first moment on: a template waits for what comes of it
};

}  // namespace sbx::guest
