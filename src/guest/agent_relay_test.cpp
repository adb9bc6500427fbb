#include "guest/agent_relay.h"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <boost/asio/buffer.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/write.hpp>
#include <filesystem>

#include "base/file.h"

namespace sbx::guest {
namespace {

using namespace std::chrono_literals;
namespace asio = boost::asio;
using Local = AgentRelay::Local;
using Stream = std::shared_ptr<wire::Http2Stream>;

wire::HeaderList no_headers() { return {}; }

// In the place of a gateway: answers each piece with itself in brackets, or refuses.
class AgentRelayTest : public testing::Test {
 protected:
  void SetUp() override {
    int ends[2];
    ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends), 0);
    auto server = wire::Http2Session::server(asio::posix::stream_descriptor(loop_, ends[0]),
                                             [this](Stream stream) { return serve(std::move(stream)); });
    auto client = wire::Http2Session::client(asio::posix::stream_descriptor(loop_, ends[1]));
    for (const auto& session : {server, client}) {
      asio::co_spawn(
          loop_, [session]() -> Awaitable<void> { (void)co_await session->run(); }, asio::detached);
    }
    port_.set_session(client);
    server_ = server;
  }
  Awaitable<void> serve(Stream stream) {
    EXPECT_EQ(stream->request().method + stream->request().path, "POST/ssh-agent");
    if (!stream->respond(refuses_ ? 403 : 200, no_headers(), refuses_) || refuses_) co_return;
    for (;;) {
      const auto chunk = co_await stream->read_chunk();
      if (!chunk || chunk->empty()) break;
      (void)co_await stream->write("[" + *chunk + "]");
    }
    (void)co_await stream->finish();
    co_await stream->closed();
  }
  // What a client that says "hello" reads until its connection ends.
  std::string talk(bool half_close) {
    std::string all;
    bool done = false;
    const auto flow = [&]() -> Awaitable<void> {
      Local::socket socket(loop_);
      const auto [refused] = co_await socket.async_connect(Local::endpoint(path()), kNoThrow);
      if (refused) {
        all = "refused";
      } else {
        (void)co_await asio::async_write(socket, asio::buffer("hello", 5), kNoThrow);
        boost::system::error_code ignored;
        if (half_close) socket.shutdown(Local::socket::shutdown_send, ignored);
        for (std::vector<char> buffer(64);;) {
          const auto [error, size] = co_await socket.async_read_some(asio::buffer(buffer), kNoThrow);
          if (error) break;
          all.append(buffer.data(), size);
          if (!half_close && all == "[hello]") server_->close();  // the gateway ends
        }
      }
      done = true;
      loop_.stop();
    };
    asio::co_spawn(loop_, flow(), asio::detached);
    loop_.restart();
    loop_.run_for(60s);
    EXPECT_TRUE(done) << "the client hangs";
    return all;
  }
  std::string path() const { return (folder_.path() / "agent.sock").string(); }

  TemporaryFolder folder_ = TemporaryFolder::make("sbx-agent-relay").value();
  asio::io_context loop_{1};
  GatewayPort port_{loop_.get_executor()};
  AgentRelay relay_{loop_.get_executor(), port_};
  std::shared_ptr<wire::Http2Session> server_;
  bool refuses_ = false;
};

TEST_F(AgentRelayTest, CarriesBothDirectionsForEveryUserOfTheSandbox) {
  ASSERT_TRUE(relay_.offer(true, path().c_str()));
  struct stat there {};
  ASSERT_EQ(::stat(path().c_str(), &there), 0);
  EXPECT_EQ(there.st_mode & 0777U, 0666U);
  EXPECT_EQ(talk(true), "[hello]");
  EXPECT_EQ(talk(true), "[hello]");
  EXPECT_EQ(talk(false), "[hello]") << "and ends with the gateway";
}

TEST_F(AgentRelayTest, IsThereOnlyWhenItIsOfferedAndComesBackWhenSomebodyRemovedIt) {
  ASSERT_TRUE(relay_.offer(false, path().c_str()));
  EXPECT_EQ(talk(true), "refused");
  ASSERT_TRUE(relay_.offer(true, path().c_str()));
  std::filesystem::remove(path());
  ASSERT_TRUE(relay_.offer(true, path().c_str()));
  EXPECT_EQ(talk(true), "[hello]");
  ASSERT_TRUE(relay_.offer(false, path().c_str()));
  EXPECT_EQ(talk(true), "refused");
}

TEST_F(AgentRelayTest, ARefusalClosesTheClient) {
  refuses_ = true;
  ASSERT_TRUE(relay_.offer(true, path().c_str()));
  EXPECT_EQ(talk(true), "");
}

}  // namespace
}  // namespace sbx::guest
