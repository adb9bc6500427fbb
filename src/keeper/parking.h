// Parking: stops the virtual machine's CPUs while nobody has anything to do in it, and has them run again before
// anything is sent to the guest. One executor; must outlive run() and every Hold.
//
// A sandbox is parked kParkAfter after the last use if there is no use now and the guest says that nothing of the
// user's runs. A use is a Hold: a call to the guest that is under way, a command (attached or not). What the guest says
// decides about its own CPUs only. While it is parked all of the guest's clocks stand still; on waking CLOCK_REALTIME
// is put right, while CLOCK_MONOTONIC goes on from where it was.
#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <chrono>
#include <functional>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/result.h"
#include "wire/http2_session.h"
#include "wire/signal.h"

namespace sbx::keeper {

class Parking {
 public:
  static constexpr std::chrono::milliseconds kParkAfter{2000};

  // What is done to the machine and asked of the guest; none of it may go through wake().
  struct Steps {
    std::function<wire::Awaitable<Result<void>>()> pause;
    std::function<wire::Awaitable<Result<void>>()> resume;
    std::function<wire::Awaitable<Result<void>>()> put_clock_right;
    std::function<wire::Awaitable<Result<void>>()> wait_until_quiet;  // returns when nothing of the user's runs
  };

  // While one lives the machine runs.
  class Hold {
   public:
    Hold() = default;
    Hold(Hold&& other) noexcept : parking_(std::exchange(other.parking_, nullptr)) {}
    Hold& operator=(Hold&& other) noexcept {
      std::swap(parking_, other.parking_);
      return *this;
    }
    ~Hold() {
      if (parking_ != nullptr) parking_->release();
    }

   private:
    friend class Parking;
    explicit Hold(Parking& parking) : parking_(&parking) {}
    Parking* parking_ = nullptr;
  };

  explicit Parking(boost::asio::any_io_executor executor, std::chrono::milliseconds park_after = kParkAfter)
      : executor_(executor), park_after_(park_after), changed_(executor) {}
  Parking(const Parking&) = delete;
  Parking& operator=(const Parking&) = delete;

  // Parks the machine again and again until end().
  wire::Awaitable<void> run(Steps steps);
  // Returns with the machine running. It always does before run().
  wire::Awaitable<Result<Hold>> wake();
  // From now on the machine is not parked any more; one that is parked stays so until wake().
  void end();
  bool parked() const { return state_ == State::kParked; }

 private:
  enum class State { kAwake, kPausing, kParked, kWaking };
  void enter(State state);
  void release();
  wire::Awaitable<void> sleep_for(std::chrono::milliseconds time);

  boost::asio::any_io_executor executor_;
  std::chrono::milliseconds park_after_;
  wire::Signal changed_;
  Steps steps_;
  State state_ = State::kAwake;
  std::size_t holds_ = 0;
  std::uint64_t uses_ = 0;
  bool ended_ = false;
};

}  // namespace sbx::keeper
