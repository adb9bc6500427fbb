#include "sandbox/gateway_link.h"

#include <gtest/gtest.h>

#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>

#include "base/file.h"
#include "vm/machine_process.h"
#include "wire/length_prefix.h"

namespace sbx::sandbox {
namespace {

namespace asio = boost::asio;
using namespace std::chrono_literals;
using Stream = std::shared_ptr<wire::Http2Stream>;

// What listens on gateway.sock: one gateway after another.
class FakeGateway {
 public:
  FakeGateway(asio::io_context& loop, UniqueFd listener)
      : acceptor_(loop, asio::local::stream_protocol(), listener.release()) {}

  Awaitable<void> serve_one() {
    auto socket = co_await acceptor_.async_accept(asio::use_awaitable);
    session = wire::Http2Session::server(asio::posix::stream_descriptor(acceptor_.get_executor(), socket.release()),
                                         [this](Stream stream) { return handle(std::move(stream)); });
    const auto keep = session;
    (void)co_await keep->run();
  }

  std::vector<std::string> configurations;
  std::string log = "{\"host\":\"a.example\"}\nnot json\n[1]\n{\"host\":\"b.example\"}\n";
  int status = 200;
  std::string logins;
  bool slow = false;  // it does not take what it is told, until this is false again
  std::vector<std::string> seen, told;
  std::shared_ptr<wire::Http2Session> session;

 private:
  Awaitable<void> handle(Stream stream) {
    if (stream->request().path == "/config") {
      for (const auto& [name, value] : stream->request().headers) {
        if (name == "sbx-logins-seen") seen.push_back(value);
      }
      asio::steady_timer pause(acceptor_.get_executor());
      while (slow) {
        pause.expires_after(10ms);
        co_await pause.async_wait(asio::use_awaitable);
      }
      auto body = co_await wire::read_body(*stream, 1U << 20U);
      configurations.push_back(body.value_or("(none)"));
      co_return co_await wire::send_json(*stream, status, "{}");
    }
    if (stream->request().path == "/log/told") {
      auto id = co_await wire::read_body(*stream, 100);
      told.push_back(id.value_or("(none)"));
      co_return co_await wire::send_json(*stream, 200, "{}");
    }
    if (!stream->respond(200, {}, false)) co_return;
    (void)co_await stream->write(stream->request().path == "/logins" ? logins : log);
    co_await stream->closed();
  }

  asio::local::stream_protocol::acceptor acceptor_;
};

class GatewayLinkTest : public testing::Test {
 protected:
  void SetUp() override {
    link_ = std::make_shared<GatewayLink>(
        loop_.get_executor(), folder_.path() / "gateway.sock",
        [this]() -> Awaitable<Result<std::string>> { co_return "config " + std::to_string(++configured_); },
        [this](const nlohmann::json& entry) { return record(entry.value("host", "")); },
        [this](std::shared_ptr<const secret::LoginUpdate> login) { return keep(std::move(login)); });
    link_->start();
  }
  void TearDown() override {
    link_->stop();
    loop_.restart();
    loop_.run_for(1s);
  }
  bool until(const std::function<bool()>& holds) {
    const auto deadline = std::chrono::steady_clock::now() + 120s;
    while (!holds() && std::chrono::steady_clock::now() < deadline) {
      loop_.restart();
      loop_.run_one_for(50ms);
    }
    return holds();
  }

  Result<void> record(const std::string& host) {
    recorded_.push_back(host);
    if (host == unrecordable_) return fail(ErrorCode::kUnavailable, "the disk is full");
    return {};
  }

  Awaitable<Result<void>> keep(std::shared_ptr<const secret::LoginUpdate> login) {
    kept_.push_back(login->service + " " + std::string(login->tokens.access.reveal()));
    if (login->service == "unknown") co_return fail(ErrorCode::kNotFound, "there is no such service");
    if (locked_) co_return fail(ErrorCode::kUnavailable, "the keyring is locked");
    co_return Result<void>{};
  }
  bool refresh(std::chrono::milliseconds patience = 60s) {
    std::optional<Result<void>> taken;
    asio::co_spawn(
        loop_, [&]() -> Awaitable<void> { taken = co_await link_->refresh(patience); }, asio::detached);
    return until([&] { return taken.has_value(); }) && taken->has_value();
  }
  static std::string login(const std::string& number, const std::string& service) {
    const auto field = [](const std::string& text) { return wire::length_prefixed(text); };
    return field(field(number) + field(service) + field("0") + field("token") + field("refresh"));
  }

  asio::io_context loop_{1};
  TemporaryFolder folder_ = TemporaryFolder::make("sbx-gateway-link").value();
  FakeGateway gateway_{loop_, vm::listen_in(folder_.path(), "gateway.sock").value()};
  int configured_ = 0;
  std::vector<std::string> recorded_, kept_;
  std::string unrecordable_;
  bool locked_ = false;
  std::shared_ptr<GatewayLink> link_;
};

TEST_F(GatewayLinkTest, TellsAGatewayAndRecordsWhatItDecides) {
  asio::co_spawn(loop_, gateway_.serve_one(), asio::detached);
  EXPECT_TRUE(until([&] { return recorded_.size() == 2; }));
  EXPECT_EQ(gateway_.configurations, std::vector<std::string>{"config 1"});
  EXPECT_EQ(recorded_[1], "b.example");
  EXPECT_EQ(link_->state(), "configured");
}

TEST_F(GatewayLinkTest, AGatewayThatComesLateOrReplacesAnotherIsToldToo) {
  loop_.run_for(200ms);
  EXPECT_EQ(link_->state(), "starting");
  asio::co_spawn(loop_, gateway_.serve_one(), asio::detached);
  ASSERT_TRUE(until([&] { return recorded_.size() == 2; }));
  gateway_.session->close();
  asio::co_spawn(loop_, gateway_.serve_one(), asio::detached);
  EXPECT_TRUE(until([&] { return recorded_.size() == 4; }));
  EXPECT_EQ(gateway_.configurations.back(), "config 2");
}

TEST_F(GatewayLinkTest, AChangeIsToldAtOnce) {
  asio::co_spawn(loop_, gateway_.serve_one(), asio::detached);
  ASSERT_TRUE(until([&] { return recorded_.size() == 2; }));
  EXPECT_TRUE(refresh());
  EXPECT_EQ(gateway_.configurations.back(), "config 2");
}

TEST_F(GatewayLinkTest, AChangeReachesAGatewayThatTakesLongerThanAnyoneWaits) {
  asio::co_spawn(loop_, gateway_.serve_one(), asio::detached);
  ASSERT_TRUE(until([&] { return recorded_.size() == 2; }));
  gateway_.slow = true;
  EXPECT_FALSE(refresh(50ms));
  gateway_.slow = false;
  EXPECT_TRUE(until([&] { return gateway_.configurations.back() == "config 2"; }));
  EXPECT_TRUE(refresh()) << "and the next one";
  EXPECT_EQ(gateway_.configurations.back(), "config 3");
}

TEST_F(GatewayLinkTest, ASignaturesLineIsAcknowledgedOnceItIsRecorded) {
  gateway_.log =
      "{\"host\":\"a.example\",\"kind\":\"forward\",\"id\":\"1-1\"}\n"
      "{\"host\":\"SHA256:x\",\"kind\":\"ssh-agent\",\"id\":\"1-2\"}\n"
      "{\"host\":\"b.example\",\"kind\":\"forward\",\"id\":\"1-3\"}\n";
  asio::co_spawn(loop_, gateway_.serve_one(), asio::detached);
  EXPECT_TRUE(until([&] { return !gateway_.told.empty() && recorded_.size() == 3; }));
  EXPECT_EQ(gateway_.told, std::vector<std::string>{"1-2"});
}

TEST_F(GatewayLinkTest, ASignatureWhoseLineCannotBeRecordedIsNotAcknowledged) {
  unrecordable_ = "SHA256:lost";
  gateway_.log =
      "{\"host\":\"SHA256:lost\",\"kind\":\"ssh-agent\",\"id\":\"1-1\"}\n"
      "{\"host\":\"b.example\",\"kind\":\"forward\",\"id\":\"1-2\"}\n";
  asio::co_spawn(loop_, gateway_.serve_one(), asio::detached);
  EXPECT_TRUE(until([&] { return recorded_.size() == 2; }));
  loop_.restart();
  loop_.run_for(200ms);
  EXPECT_EQ(gateway_.told, std::vector<std::string>());
}

TEST_F(GatewayLinkTest, ALoginIsKeptAndTheGatewayLearnsThatItIs) {
  gateway_.logins = login("3", "box") + login("4", "unknown");
  asio::co_spawn(loop_, gateway_.serve_one(), asio::detached);
  EXPECT_TRUE(until([&] { return kept_.size() == 2; }));
  EXPECT_EQ(kept_[0], "box token");
  ASSERT_TRUE(refresh());
  EXPECT_EQ(gateway_.seen, (std::vector<std::string>{"0", "3"})) << "what could not be kept stays the gateway's";
}

TEST_F(GatewayLinkTest, ALoginThatCannotBeStoredIsToldAndKeptAsSoonAsItCanBe) {
  locked_ = true;
  gateway_.logins = login("1", "box") + login("2", "other");
  asio::co_spawn(loop_, gateway_.serve_one(), asio::detached);
  ASSERT_TRUE(until([&] { return kept_.size() == 2; }));
  EXPECT_EQ(kept_, (std::vector<std::string>{"box token", "box token"})) << "it is tried again, before the next";
  EXPECT_NE(link_->unkept_login().find("box: the keyring is locked"), std::string::npos) << link_->unkept_login();
  ASSERT_TRUE(refresh());
  EXPECT_EQ(gateway_.seen.back(), "0") << "the gateway must not take it for kept";
  locked_ = false;
  ASSERT_TRUE(until([&] { return kept_.back() == "other token"; }));
  EXPECT_EQ(link_->unkept_login(), "");
  ASSERT_TRUE(until([&] { return refresh() && gateway_.seen.back() == "2"; }));
}

TEST_F(GatewayLinkTest, ARefusalIsShown) {
  gateway_.status = 400;
  asio::co_spawn(loop_, gateway_.serve_one(), asio::detached);
  EXPECT_TRUE(until([&] { return link_->state().starts_with("failed: "); })) << link_->state();
}

}  // namespace
}  // namespace sbx::sandbox
