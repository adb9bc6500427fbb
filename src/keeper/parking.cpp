#include "keeper/parking.h"

#include <spdlog/spdlog.h>

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>

namespace sbx::keeper {

namespace asio = boost::asio;
using wire::Awaitable;

void Parking::enter(State state) {
  state_ = state;
  changed_.notify();
}

void Parking::release() {
  --holds_;
  changed_.notify();
}

void Parking::end() {
  ended_ = true;
  changed_.notify();
}

Awaitable<void> Parking::sleep_for(std::chrono::milliseconds time) {
  asio::steady_timer timer(executor_, time);
  (void)co_await timer.async_wait(asio::as_tuple(asio::use_awaitable));
}

Awaitable<void> Parking::run(Steps steps) {
  steps_ = std::move(steps);
  while (!ended_) {
    if (holds_ > 0 || state_ != State::kAwake) {
      co_await changed_.wait();
      continue;
    }
    const auto before = uses_;
    co_await sleep_for(park_after_);
    if (uses_ != before || ended_) continue;
    const auto quiet = co_await steps_.wait_until_quiet();
    // A use while we asked starts the wait anew. A guest that cannot be asked is not parked.
    if (!quiet || uses_ != before || ended_) continue;
    enter(State::kPausing);
    const auto paused = co_await steps_.pause();
    if (!paused) spdlog::warn("the machine could not be parked: {}", paused.error().describe());
    enter(paused ? State::kParked : State::kAwake);
  }
}

Awaitable<Result<Parking::Hold>> Parking::wake() {
  ++holds_;
  ++uses_;
  Hold hold(*this);
  while (state_ == State::kPausing || state_ == State::kWaking) co_await changed_.wait();
  if (state_ != State::kParked) co_return std::move(hold);
  enter(State::kWaking);
  const auto resumed = co_await steps_.resume();
  if (!resumed) {
    enter(State::kParked);
    co_return std::unexpected(Error(resumed.error()).while_doing("waking the sandbox"));
  }
  const auto clock = co_await steps_.put_clock_right();
  if (!clock) spdlog::warn("the guest's clock could not be put right: {}", clock.error().describe());
  enter(State::kAwake);
  co_return std::move(hold);
}

}  // namespace sbx::keeper
