#include "keeper/files_barrier.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/socket.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <vector>

#include "base/file.h"

namespace sbx::keeper {
namespace {

class FilesBarrierTest : public testing::Test {
 protected:
  void SetUp() override {
    ::signal(SIGPIPE, SIG_IGN);  // as the worker does
    int ends[2];
    ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    barrier_.connect(UniqueFd(ends[0]));
    server_.reset(ends[1]);
  }
  void ask() {
    boost::asio::co_spawn(io_, barrier_.ask(), [this](std::exception_ptr error, std::optional<std::uint64_t> count) {
      EXPECT_FALSE(error);
      answers_.push_back(count);
    });
  }
  void say(std::uint64_t count) {
    ASSERT_TRUE(write_all(server_.get(), {reinterpret_cast<const char*>(&count), sizeof(count)}));
  }

  boost::asio::io_context io_;
  FilesBarrier barrier_{io_.get_executor()};
  UniqueFd server_;
  std::vector<std::optional<std::uint64_t>> answers_;
};

TEST_F(FilesBarrierTest, EachQuestionGetsItsOwnAnswer) {
  ask();
  ask();
  say(7);
  say(1ULL << 40U);
  io_.run();
  EXPECT_EQ(answers_, (std::vector<std::optional<std::uint64_t>>{7, 1ULL << 40U}));
}

TEST_F(FilesBarrierTest, AServerThatIsGoneHoldsNobodyUp) {
  ask();
  server_.reset();
  io_.run();
  io_.restart();
  ask();
  io_.run();
  EXPECT_EQ(answers_, (std::vector<std::optional<std::uint64_t>>{std::nullopt, std::nullopt}));
}

TEST_F(FilesBarrierTest, WithoutAServerThereIsNothingToWaitFor) {
  barrier_.connect(UniqueFd());
  ask();
  io_.run();
  EXPECT_EQ(answers_, (std::vector<std::optional<std::uint64_t>>{std::nullopt}));
}

}  // namespace
}  // namespace sbx::keeper
