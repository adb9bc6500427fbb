// GET /v1/policy/log/follow over a real socket.
#include <gtest/gtest.h>

#include <boost/asio/detached.hpp>
#include <boost/asio/read_until.hpp>
#include <boost/asio/write.hpp>

#include "api/http_server.h"
#include "base/file.h"

namespace sbx::api {
namespace {

namespace asio = boost::asio;
using namespace std::chrono_literals;
using asio::local::stream_protocol;

nlohmann::json decision(const std::string& host) {
  return {{"kind", "transparent"}, {"host", host}, {"port", 443}, {"protocol", "tcp"}, {"allowed", true}};
}

class PolicyLogStream : public testing::Test {
 protected:
  PolicyLogStream()
      : folder_(TemporaryFolder::make("api").value()),
        database_(store::Database::open(folder_.path() / "store.db").value()),
        lifecycle_(loop_, store::Paths::for_home(folder_.path()), database_, folder_.path()),
        daemon_{lifecycle_, 0, folder_.path(), {}},
        client_(loop_) {
    stream_protocol::acceptor listener(loop_, stream_protocol::endpoint((folder_.path() / "sock").native()));
    client_.connect(listener.local_endpoint());
    asio::co_spawn(loop_, serve(std::move(listener), daemon_), asio::detached);
  }
  void ask(const std::string& target) {
    asio::write(client_, asio::buffer("GET " + target + " HTTP/1.1\r\nHost: sbx\r\n\r\n"));
    loop_.run_for(100ms);
  }
  // What has arrived up to `end`; the deadline bounds a failure.
  std::string read_to(const std::string& end) {
    bool arrived = false;
    asio::async_read_until(client_, asio::dynamic_buffer(text_), end,
                           [&](boost::system::error_code error, std::size_t) { arrived = !error; });
    for (int i = 0; i < 1200 && !arrived; ++i) {
      loop_.restart();
      loop_.run_one_for(100ms);
    }
    EXPECT_TRUE(arrived) << text_;
    return text_;
  }

  TemporaryFolder folder_;
  store::Database database_;
  asio::io_context loop_{1};
  sandbox::Lifecycle lifecycle_;
  Daemon daemon_;
  stream_protocol::socket client_;
  std::string text_;
};

TEST_F(PolicyLogStream, BeginsWithWhatWasAndGoesOnAsItHappens) {
  lifecycle_.policy_log().record("id", "box", decision("first.com"));
  lifecycle_.policy_log().record("id", "box", decision("second.com"));
  ask("/v1/policy/log/follow?limit=1");
  EXPECT_NE(read_to("second.com").find("200 OK"), std::string::npos);
  EXPECT_EQ(text_.find("first.com"), std::string::npos);
  lifecycle_.policy_log().record("other", "box2", decision("third.com"));
  EXPECT_NE(read_to("third.com").find("\"sandbox\":\"box2\""), std::string::npos);
}

TEST_F(PolicyLogStream, RefusesABadLimit) {
  ask("/v1/policy/log/follow?limit=-1");
  EXPECT_NE(read_to("must be a number").find("400"), std::string::npos);
}

TEST_F(PolicyLogStream, RefusesAnUnknownSandbox) {
  ask("/v1/policy/log/follow?sandbox=nobody");
  EXPECT_NE(read_to("not found").find("404"), std::string::npos);
}

}  // namespace
}  // namespace sbx::api
