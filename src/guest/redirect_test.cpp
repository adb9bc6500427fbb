#include "guest/redirect.h"

#include <gtest/gtest.h>
#include <sys/socket.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/read.hpp>
#include <boost/asio/write.hpp>
#include <set>

namespace sbx::guest {
namespace {

using namespace std::chrono_literals;
namespace asio = boost::asio;
using Tcp = asio::ip::tcp;
using Stream = std::shared_ptr<wire::Http2Stream>;

// Outside coroutines (GCC 12).
Error refusal() { return {ErrorCode::kDenied, "by policy", {}}; }

// The network port's other end: what it does depends on the name that is asked for.
struct FakeGateway {
  std::vector<std::string> asked;
  std::string end_of_held = "open";  // what became of the stream to held.example
  std::shared_ptr<wire::Http2Session> session;

  Awaitable<void> echo(Stream stream) {
    std::vector<char> buffer(16384);
    for (;;) {
      const auto size = co_await stream->read_some(buffer);
      if (!size) co_return;
      if (*size == 0) break;
      const auto written = co_await stream->write(std::string_view(buffer.data(), *size));
      if (!written) co_return;
    }
    (void)co_await stream->write("[end]");
    (void)co_await stream->finish();
  }

  Awaitable<void> serve(Stream stream) {
    const auto authority = stream->request().path;
    EXPECT_EQ(stream->request().method, "CONNECT");
    asked.push_back(authority);
    if (authority.starts_with("refused")) {
      co_return co_await wire::send_error(*stream, refusal());
    }
    if (!stream->respond(200, {}, false)) co_return;
    if (authority.starts_with("echo")) co_return co_await echo(stream);
    std::vector<char> one(1);
    const auto first = co_await stream->read_some(one);
    if (!first || authority.starts_with("reset")) co_return stream->reset();
    co_await stream->closed();  // held: reads nothing more
    end_of_held = "closed";
  }
};

class RedirectTest : public testing::Test {
 protected:
  void SetUp() override {
    port_ = redirect_.listen(0).value();
    attach();
  }
  // A gateway takes up the port.
  void attach() {
    int ends[2];
    ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends), 0);
    gateway_.session = wire::Http2Session::server(asio::posix::stream_descriptor(loop_, ends[0]),
                                                  [this](Stream stream) { return gateway_.serve(std::move(stream)); });
    auto client = wire::Http2Session::client(asio::posix::stream_descriptor(loop_, ends[1]));
    for (const auto& session : {gateway_.session, client}) {
      asio::co_spawn(
          loop_, [session]() -> Awaitable<void> { (void)co_await session->run(); }, asio::detached);
    }
    port_to_gateway_.set_session(client);
  }
  // Runs `flow` to its end; fails when it takes longer than a minute.
  void run(std::function<Awaitable<void>()> flow) {
    bool done = false;
    asio::co_spawn(
        loop_,
        [&]() -> Awaitable<void> {
          co_await flow();
          done = true;
          loop_.stop();
        },
        asio::detached);
    loop_.run_for(60s);
    EXPECT_TRUE(done) << "the flow hangs";
  }
  Awaitable<Tcp::socket> connect(std::string name) {
    address_ = names_.address_for(name).value();
    Tcp::socket socket(loop_);
    const Tcp::endpoint redirect(asio::ip::address_v4::loopback(), port_);
    const auto [error] = co_await socket.async_connect(redirect, kNoThrow);
    EXPECT_FALSE(error) << error.message();
    co_return socket;
  }
  static Awaitable<std::string> read_to_end(Tcp::socket& socket, boost::system::error_code& end) {
    std::string all;
    std::vector<char> buffer(65536);
    for (;;) {
      const auto [error, size] = co_await socket.async_read_some(asio::buffer(buffer), kNoThrow);
      all.append(buffer.data(), size);
      if (!error) continue;
      end = error;
      co_return all;
    }
  }
  Awaitable<void> until(std::function<bool()> holds) {
    for (int i = 0; i < 6000 && !holds(); ++i) co_await sleep_for(loop_.get_executor(), 5ms);
    EXPECT_TRUE(holds());
  }

  asio::io_context loop_{1};
  NameMap names_;
  FakeGateway gateway_;
  GatewayPort port_to_gateway_{loop_.get_executor()};
  std::uint32_t address_ = 0;
  Redirect redirect_{loop_.get_executor(), port_to_gateway_, names_,
                     [this](const Tcp::socket&) -> Result<std::pair<std::uint32_t, std::uint16_t>> {
                       return std::pair<std::uint32_t, std::uint16_t>(address_, 443);
                     }};
  std::uint16_t port_ = 0;
};

TEST_F(RedirectTest, AConnectionGoesToTheNameAndAHalfCloseIsOne) {
  run([&]() -> Awaitable<void> {
    auto socket = co_await connect("echo.example");
    const std::string sent(3U << 20U, 'x');
    asio::co_spawn(
        loop_,
        [&]() -> Awaitable<void> {
          (void)co_await asio::async_write(socket, asio::buffer(sent), kNoThrow);
          socket.shutdown(Tcp::socket::shutdown_send);
        },
        asio::detached);
    boost::system::error_code end;
    const auto got = co_await read_to_end(socket, end);
    EXPECT_EQ(got.size(), sent.size() + 5);
    EXPECT_TRUE(got.ends_with("[end]")) << "what follows the end of our data still arrives";
    EXPECT_EQ(end, asio::error::eof);
  });
  EXPECT_EQ(gateway_.asked, std::vector<std::string>{"echo.example:443"});
}

TEST_F(RedirectTest, AnAddressWithoutANameGoesOutAsItIs) {
  run([&]() -> Awaitable<void> {
    (void)co_await connect("echo.example");
    address_ = 169U << 24U | 254U << 16U | 169U << 8U | 254U;
    Tcp::socket socket(loop_);
    const Tcp::endpoint redirect(asio::ip::address_v4::loopback(), port_);
    (void)co_await socket.async_connect(redirect, kNoThrow);
    co_await until([&] { return gateway_.asked.size() == 2; });
  });
  EXPECT_EQ(gateway_.asked.back(), "169.254.169.254:443");
}

TEST_F(RedirectTest, WhatTheGatewayRefusesOrResetsIsReset) {
  const std::vector<std::string> names = {"refused.example", "reset.example"};
  run([&]() -> Awaitable<void> {
    for (const auto& name : names) {
      auto socket = co_await connect(name);
      (void)co_await asio::async_write(socket, asio::buffer("hello", 5), kNoThrow);
      boost::system::error_code end;
      const auto got = co_await read_to_end(socket, end);
      EXPECT_EQ(got, "");
      EXPECT_EQ(end, asio::error::connection_reset) << name << ": " << end.message();
    }
    co_await until([&] { return redirect_.connections() == 0; });
  });
}

TEST_F(RedirectTest, AResetReachesTheGateway) {
  run([&]() -> Awaitable<void> {
    auto socket = co_await connect("held.example");
    (void)co_await asio::async_write(socket, asio::buffer("x", 1), kNoThrow);
    co_await until([&] { return !gateway_.asked.empty(); });
    co_await sleep_for(loop_.get_executor(), 50ms);
    EXPECT_EQ(gateway_.end_of_held, "open");
    socket.set_option(asio::socket_base::linger(true, 0));
    socket.close();
    co_await until([&] { return gateway_.end_of_held == "closed"; });
    co_await until([&] { return redirect_.connections() == 0; });
  });
}

TEST_F(RedirectTest, AReaderThatStallsHoldsItsWriterBack) {
  std::size_t taken = 0;
  run([&]() -> Awaitable<void> {
    auto socket = co_await connect("held.example");
    const std::string piece(1U << 20U, 'x');
    asio::steady_timer enough(loop_, 1s);
    enough.async_wait([&](boost::system::error_code error) {
      if (!error) socket.close();
    });
    for (int i = 0; i < 64; ++i) {
      const auto [error, size] = co_await asio::async_write(socket, asio::buffer(piece), kNoThrow);
      taken += size;
      if (error) break;
    }
  });
  EXPECT_LT(taken, 32U << 20U) << "somebody buffers without bound";
}

TEST_F(RedirectTest, AGatewayThatGoesTakesItsConnectionsAndTheNextOneServes) {
  run([&]() -> Awaitable<void> {
    auto lost = co_await connect("held.example");
    (void)co_await asio::async_write(lost, asio::buffer("x", 1), kNoThrow);
    co_await until([&] { return !gateway_.asked.empty(); });
    gateway_.session->close();
    boost::system::error_code end;
    (void)co_await read_to_end(lost, end);
    EXPECT_EQ(end, asio::error::connection_reset);
    auto waiting = co_await connect("echo.example");  // there is no gateway now: it waits for the next one
    co_await sleep_for(loop_.get_executor(), 50ms);
    attach();
    (void)co_await asio::async_write(waiting, asio::buffer("hello", 5), kNoThrow);
    waiting.shutdown(Tcp::socket::shutdown_send);
    const auto got = co_await read_to_end(waiting, end);
    EXPECT_EQ(got, "hello[end]");
  });
}

TEST_F(RedirectTest, AThousandConnectionsLeaveNothingBehind) {
  int answered = 0;
  run([&]() -> Awaitable<void> {
    (void)names_.address_for("echo.example");
    for (int batch = 0; batch < 4; ++batch) {
      int left = 250;
      for (int i = 0; i < 250; ++i) {
        asio::co_spawn(
            loop_,
            [&]() -> Awaitable<void> {
              auto socket = co_await connect("echo.example");
              (void)co_await asio::async_write(socket, asio::buffer("hi", 2), kNoThrow);
              socket.shutdown(Tcp::socket::shutdown_send);
              boost::system::error_code end;
              const auto got = co_await read_to_end(socket, end);
              if (got == "hi[end]") ++answered;
              --left;
            },
            asio::detached);
      }
      co_await until([&] { return left == 0; });
    }
    co_await until([&] { return redirect_.connections() == 0; });
    EXPECT_EQ(gateway_.session->open_streams(), 0U);
  });
  EXPECT_EQ(answered, 1000);
}

}  // namespace
}  // namespace sbx::guest
