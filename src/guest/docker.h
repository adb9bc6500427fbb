// Docker: the supervised dockerd (which brings its own containerd), in the cgroup /services. Restarted with a back-off;
// its output is in /var/log/dockerd.log. Thread safety: none; the event loop only.
//
// docker.sock is ours: dockerd gets the listening socket handed down. So clients of a dockerd that starts, starts again
// or sleeps wait instead of being refused, and a sleeping one wakes when the first of them connects.
#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <chrono>
#include <memory>
#include <string_view>

#include "base/result.h"
#include "guest/async_event.h"
#include "guest/cgroups.h"
#include "guest/reaper.h"
#include "wire/signal.h"

namespace sbx::guest {

class Docker {
 public:
  enum class State { kOff, kStarting, kReady, kFailed };

  Docker(boost::asio::any_io_executor executor, Reaper& reaper, Cgroups& cgroups)
      : executor_(executor), reaper_(reaper), cgroups_(cgroups), stopping_(executor), changed_(executor) {}

  // Instead of run(): there will be no dockerd.
  void disable() { enter(State::kOff); }
  // Listens on docker.sock, so that clients which come before dockerd wait for it.
  void listen();
  // Runs until stop(). kOff at once if there is no dockerd.
  Awaitable<void> run();
  // SIGTERM, and SIGKILL after `deadline`.
  Awaitable<void> stop(std::chrono::milliseconds deadline);

  // Called when the user's processes are thawed and the services are still frozen. True: they stay frozen until a
  // client connects, which costs an idle sandbox neither CPU nor memory for them. False: they have something to do
  // (containers that may have to be restarted, a dockerd that has not started yet); the caller thaws them.
  bool sleep_until_used();

  // Returns when dockerd answers, or will not (kReady, kOff, kFailed).
  Awaitable<void> settled();

  State state() const { return state_; }
  std::string_view state_word() const;

 private:
  Result<void> start();
  void enter(State state);
  Awaitable<void> watch_readiness(std::shared_ptr<Child> child);
  Awaitable<bool> answers_ping(std::shared_ptr<Child> child);
  Awaitable<void> wake_when_used();

  boost::asio::any_io_executor executor_;
  Reaper& reaper_;
  Cgroups& cgroups_;
  AsyncEvent stopping_;
  wire::Signal changed_;
  std::shared_ptr<Child> child_;
  UniqueFd socket_;                 // /run/docker.sock, listening
  State state_ = State::kStarting;  // from the first moment on: a template waits for what comes of it
};

}  // namespace sbx::guest
