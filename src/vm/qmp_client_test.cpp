#include "vm/qmp_client.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/use_future.hpp>
#include <thread>

#include "base/file.h"

namespace sbx::vm {
namespace {

namespace asio = boost::asio;
using nlohmann::json;
using namespace std::chrono_literals;

// A peer that writes what it is told, and whatever the client sends to nobody.
class QmpTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ::signal(SIGPIPE, SIG_IGN);  // the peer outlives the client in some tests
    int fds[2];
    ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    client_ = std::make_unique<QmpClient>(context_.get_executor(), UniqueFd(fds[0]));
    peer_.reset(fds[1]);
  }
  template <typename T>
  T run(Awaitable<T> task) {
    context_.restart();
    auto future = asio::co_spawn(context_, std::move(task), asio::use_future);
    context_.run();
    return future.get();
  }
  void say(std::string_view text) { ASSERT_TRUE(write_all(peer_.get(), text)); }
  Result<json> execute(std::string command, std::chrono::milliseconds deadline = 60s) {
    json none = json::object();
    return run(client_->execute(std::move(command), std::move(none), -1, deadline));
  }

  asio::io_context context_;
  std::unique_ptr<QmpClient> client_;
  UniqueFd peer_;
};

TEST_F(QmpTest, GreetsAndKeepsEventsThatComeBetween) {
  say("{\"QMP\":{}}\r\n{\"return\":{},\"id\":1}\r\n");
  ASSERT_TRUE(run(client_->handshake(60s)));
  say("{\"event\":\"STOP\",\"data\":{}}\n{\"return\":{\"status\":\"paused\"},\"id\":2}\n");
  const auto answer = execute("query-status");
  ASSERT_TRUE(answer) << answer.error().describe();
  EXPECT_EQ((*answer)["status"], "paused");
  ASSERT_EQ(client_->events().size(), 1U);
  EXPECT_EQ(client_->events()[0]["event"], "STOP");
}

TEST_F(QmpTest, TellsQemusReason) {
  say("{\"error\":{\"class\":\"GenericError\",\"desc\":\"no such\\nthing\"},\"id\":1}\n");
  const auto answer = execute("cont");
  ASSERT_FALSE(answer);
  EXPECT_EQ(answer.error().message, "QEMU refused 'cont': no such thing");
}

TEST_F(QmpTest, GivesUpAfterTheDeadlineAndIgnoresTheLateAnswer) {
  const auto answer = execute("stop", 20ms);
  ASSERT_FALSE(answer);
  EXPECT_EQ(answer.error().code, ErrorCode::kTimeout);
  say("{\"return\":{\"late\":true},\"id\":1}\n{\"return\":{\"late\":false},\"id\":2}\n");
  const auto next = execute("cont");
  ASSERT_TRUE(next) << next.error().describe();
  EXPECT_EQ((*next)["late"], false);
}

TEST_F(QmpTest, RefusesAnEndlessLine) {
  std::thread peer([this] {
    const std::string chunk(1 << 16, 'x');
    for (int i = 0; i < 64 && write_all(peer_.get(), chunk); ++i) {
    }
  });
  const auto answer = execute("cont", 60s);
  ASSERT_FALSE(answer);
  EXPECT_EQ(answer.error().code, ErrorCode::kInvalid);
  EXPECT_FALSE(execute("cont"));
  client_.reset();
  ::shutdown(peer_.get(), SHUT_RDWR);
  peer.join();
}

TEST_F(QmpTest, RefusesWhatIsNotQmpAndNoticesTheEnd) {
  say("[1,2,3]\n");
  EXPECT_FALSE(execute("cont"));
  EXPECT_FALSE(execute("cont"));
}

TEST_F(QmpTest, NoticesTheEndOfTheConnection) {
  peer_.reset();
  const auto answer = execute("cont");
  ASSERT_FALSE(answer);
  EXPECT_EQ(answer.error().code, ErrorCode::kUnavailable);
}

TEST_F(QmpTest, CallsFromSeveralCoroutinesWaitTheirTurn) {
  say("{\"return\":{\"n\":1},\"id\":1}\n{\"return\":{\"n\":2},\"id\":2}\n{\"return\":{\"n\":3},\"id\":3}\n");
  int done = 0;
  for (int i = 1; i <= 3; ++i) {
    asio::co_spawn(
        context_,
        [](QmpClient& client, int expected, int& count) -> Awaitable<void> {
          auto answer = co_await client.execute("x");
          EXPECT_TRUE(answer);
          if (answer) {
            EXPECT_EQ((*answer)["n"], expected);
          }
          ++count;
        }(*client_, i, done),
        asio::detached);
  }
  context_.run();
  EXPECT_EQ(done, 3);
}

TEST_F(QmpTest, WaitsForAnEvent) {
  EXPECT_FALSE(run(client_->wait_for_event(10ms)));
  say("{\"event\":\"MIGRATION\",\"data\":{\"status\":\"completed\"}}\n");
  EXPECT_TRUE(run(client_->wait_for_event(60s)));
}

}  // namespace
}  // namespace sbx::vm
