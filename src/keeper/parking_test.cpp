#include "keeper/parking.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <functional>
#include <string>
#include <vector>

namespace sbx::keeper {
namespace {

namespace asio = boost::asio;
using wire::Awaitable;

constexpr std::chrono::milliseconds kSoon{10};

class ParkingTest : public testing::Test {
 protected:
  // Runs `flow` beside the parking; fails the test when it takes longer than two minutes.
  void run(std::function<Awaitable<void>()> flow) {
    Parking::Steps steps;
    steps.pause = [this]() -> Awaitable<Result<void>> {
      co_await sleep(kSoon);
      did("pause");
      co_return Result<void>{};
    };
    steps.resume = [this]() -> Awaitable<Result<void>> {
      co_await sleep(kSoon);
      did("resume");
      if (resume_fails_) co_return fail(ErrorCode::kUnavailable, "the connection to QEMU is closed");
      co_return Result<void>{};
    };
    steps.put_clock_right = [this]() -> Awaitable<Result<void>> {
      did("clock");
      co_return Result<void>{};
    };
    steps.wait_until_quiet = [this]() -> Awaitable<Result<void>> {
      ++asked_;
      while (!quiet_) co_await changed_.wait();
      co_return Result<void>{};
    };
    asio::co_spawn(io_, parking_.run(std::move(steps)), asio::detached);
    bool returned = false;
    asio::co_spawn(
        io_,
        [&]() -> Awaitable<void> {
          co_await flow();
          parking_.end();
          returned = true;
        },
        asio::detached);
    io_.run_for(std::chrono::minutes(2));
    EXPECT_TRUE(returned) << "the flow hangs";
  }

  void did(const std::string& step) {
    steps_.push_back(step);
    changed_.notify();
  }
  Awaitable<void> sleep(std::chrono::milliseconds time) {
    asio::steady_timer timer(io_, time);
    (void)co_await timer.async_wait(asio::as_tuple(asio::use_awaitable));
  }
  Awaitable<void> until_parked() {
    while (!parking_.parked()) co_await sleep(std::chrono::milliseconds(1));
  }

  asio::io_context io_;
  Parking parking_{io_.get_executor(), kSoon};
  wire::Signal changed_{io_.get_executor()};
  std::vector<std::string> steps_;
  bool quiet_ = true;
  bool resume_fails_ = false;
  int asked_ = 0;
};

TEST_F(ParkingTest, ParksWhenIdleAndWakesWithARightClockBeforeTheUse) {
  run([this]() -> Awaitable<void> {
    co_await until_parked();
    const auto hold = co_await parking_.wake();
    EXPECT_TRUE(hold.has_value());
    EXPECT_EQ(steps_, (std::vector<std::string>{"pause", "resume", "clock"}));
    EXPECT_FALSE(parking_.parked());
  });
}

TEST_F(ParkingTest, DoesNotParkDuringAUseAndParksAgainAfterIt) {
  run([this]() -> Awaitable<void> {
    {
      const auto hold = co_await parking_.wake();
      co_await sleep(kSoon * 10);
      EXPECT_TRUE(steps_.empty());
    }
    co_await until_parked();
    EXPECT_EQ(steps_.size(), 1U);
  });
}

TEST_F(ParkingTest, DoesNotParkWhileTheGuestIsBusy) {
  quiet_ = false;
  run([this]() -> Awaitable<void> {
    while (asked_ == 0) co_await sleep(std::chrono::milliseconds(1));
    co_await sleep(kSoon * 5);
    EXPECT_TRUE(steps_.empty());
    quiet_ = true;
    changed_.notify();
    co_await until_parked();
  });
}

TEST_F(ParkingTest, AUseWhileTheGuestIsAskedStartsTheWaitAnew) {
  quiet_ = false;
  run([this]() -> Awaitable<void> {
    while (asked_ == 0) co_await sleep(std::chrono::milliseconds(1));
    const auto hold = co_await parking_.wake();
    quiet_ = true;
    changed_.notify();
    co_await sleep(kSoon * 5);
    EXPECT_TRUE(steps_.empty()) << "the answer is older than the use";
  });
}

TEST_F(ParkingTest, AUseThatComesWhilePausingFindsTheMachineRunning) {
  run([this]() -> Awaitable<void> {
    while (asked_ == 0) co_await sleep(std::chrono::milliseconds(1));
    co_await sleep(kSoon / 2);  // pausing has begun and takes kSoon
    const auto hold = co_await parking_.wake();
    EXPECT_EQ(steps_, (std::vector<std::string>{"pause", "resume", "clock"}));
  });
}

TEST_F(ParkingTest, TwoUsesAtOnceWakeItOnce) {
  run([this]() -> Awaitable<void> {
    co_await until_parked();
    int awake = 0;
    for (int i = 0; i < 2; ++i) {
      asio::co_spawn(
          io_,
          [&]() -> Awaitable<void> {
            const auto hold = co_await parking_.wake();
            ++awake;
            EXPECT_EQ(steps_.back(), "clock");
          },
          asio::detached);
    }
    while (awake < 2) co_await sleep(std::chrono::milliseconds(1));
    EXPECT_EQ(std::count(steps_.begin(), steps_.end(), "resume"), 1);
  });
}

TEST_F(ParkingTest, AMachineThatDoesNotWakeIsAnErrorOfTheUse) {
  resume_fails_ = true;
  run([this]() -> Awaitable<void> {
    co_await until_parked();
    const auto hold = co_await parking_.wake();
    EXPECT_FALSE(hold.has_value());
    EXPECT_TRUE(parking_.parked());
  });
}

}  // namespace
}  // namespace sbx::keeper
