#include "guest/relay_progress.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>

namespace sbx::guest {
namespace {

using namespace std::chrono_literals;

class RelayProgressTest : public testing::Test {
 protected:
  bool reaches(std::uint64_t count, std::chrono::milliseconds limit) {
    std::optional<bool> reached;
    boost::asio::co_spawn(io_, progress_->reaches(count, limit), [&](std::exception_ptr error, bool result) {
      EXPECT_FALSE(error);
      reached = result;
    });
    io_.restart();
    while (!reached) io_.run_one();
    return *reached;
  }

  boost::asio::io_context io_;
  RelayCounter counter_ = RelayCounter::make().value();
  std::shared_ptr<RelayProgress> progress_ = std::make_shared<RelayProgress>(io_.get_executor(), counter_);
};

TEST_F(RelayProgressTest, WaitsForAnotherProcessAndNoLonger) {
  const pid_t relay = ::fork();
  ASSERT_GE(relay, 0);
  if (relay == 0) {
    for (int i = 0; i < 1000; ++i) counter_.add(1);
    ::_exit(0);
  }
  EXPECT_TRUE(reaches(1000, 60s));
  EXPECT_TRUE(reaches(0, 0ms));
  EXPECT_FALSE(reaches(1001, 1ms));
  ::waitpid(relay, nullptr, 0);
}

TEST_F(RelayProgressTest, TheRelaysEndEndsTheWaiting) {
  boost::asio::post(io_, [this] { progress_->end(); });
  EXPECT_TRUE(reaches(1, 60s));
  EXPECT_TRUE(reaches(2, 60s));
}

}  // namespace
}  // namespace sbx::guest
