#include "wire/http2_session.h"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>

#include "base/file.h"

namespace sbx::wire {
namespace {

namespace asio = boost::asio;

struct Peers {
  asio::io_context io;
  int fds[2] = {-1, -1};
  std::shared_ptr<Http2Session> server;
  std::shared_ptr<Http2Session> client;
  Result<void> server_end;

  explicit Peers(Http2Session::Handler handler, bool with_client = true) {
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    server = Http2Session::server(asio::posix::stream_descriptor(io, fds[0]), std::move(handler));
    asio::co_spawn(
        io, [this]() -> Awaitable<void> { server_end = co_await server->run(); }, asio::detached);
    if (!with_client) return;
    client = Http2Session::client(asio::posix::stream_descriptor(io, fds[1]));
    asio::co_spawn(
        io, [this]() -> Awaitable<void> { (void)co_await client->run(); }, asio::detached);
  }

  // Runs `flow`, then closes both sides; fails the test when it takes longer than two minutes.
  void run(std::function<Awaitable<void>()> flow) {
    asio::co_spawn(
        io,
        [this, &flow]() -> Awaitable<void> {
          co_await flow();
          if (client) client->close();
          server->close();
        },
        asio::detached);
    const auto until = std::chrono::steady_clock::now() + std::chrono::minutes(2);
    io.run_until(until);
    EXPECT_LT(std::chrono::steady_clock::now(), until) << "the flow hangs";
  }
};

Awaitable<void> echo(std::shared_ptr<Http2Stream> stream) {
  (void)stream->respond(200, {}, false);
  std::vector<char> buffer(10000);
  for (;;) {
    auto n = co_await stream->read_some(buffer);
    if (!n || *n == 0) break;
    auto written = co_await stream->write(std::string_view(buffer.data(), *n));
    if (!written) co_return;
  }
  (void)co_await stream->finish();
}

TEST(Http2Session, ABodyOfManyWindowsComesBackWhole) {
  Peers peers(echo);
  peers.run([&]() -> Awaitable<void> {
    std::string sent(3U << 20U, 'x');
    for (std::size_t i = 0; i < sent.size(); i += 1000) sent[i] = static_cast<char>(i / 1000);
    Http2Head head;
    head.method = "POST";
    head.path = "/echo";
    auto stream = *peers.client->open(head, false);
    asio::co_spawn(
        peers.io,
        [stream, &sent]() -> Awaitable<void> {
          (void)co_await stream->write(sent);
          (void)co_await stream->finish();
        },
        asio::detached);
    auto body = co_await read_body(*stream, 16U << 20U);
    EXPECT_TRUE(body && *body == sent);
  });
}

TEST(Http2Session, AStalledReaderDoesNotHoldUpTheOthers) {
  Peers peers([](std::shared_ptr<Http2Stream> stream) -> Awaitable<void> {
    if (stream->request().path == "/small") co_return co_await send_json(*stream, 200, "{}");
    (void)stream->respond(200, {}, false);
    const std::string piece(65536, 'y');
    for (;;) {
      auto written = co_await stream->write(piece);
      if (!written) co_return;
    }
  });
  peers.run([&]() -> Awaitable<void> {
    Http2Head head;
    head.method = "GET";
    head.path = "/endless";
    auto stalled = *peers.client->open(head, true);
    (void)co_await stalled->response();
    for (int i = 0; i < 50; ++i) {
      auto answer = co_await call(*peers.client, "GET", "/small", "");
      EXPECT_TRUE(answer && *answer == "{}");
    }
    stalled->reset();
  });
}

TEST(Http2Session, AnErrorKeepsItsCodeAcrossTheWire) {
  Peers peers([](std::shared_ptr<Http2Stream> stream) -> Awaitable<void> {
    const Error error{ErrorCode::kConflict, "taken", {}};
    co_await send_error(*stream, error);
  });
  peers.run([&]() -> Awaitable<void> {
    auto answer = co_await call(*peers.client, "POST", "/x", "{\"a\":1}");
    EXPECT_FALSE(answer);
    EXPECT_EQ(answer.error().code, ErrorCode::kConflict);
    EXPECT_EQ(answer.error().message, "taken");
  });
}

TEST(Http2Session, AnAnswerIsDeliveredWholeThoughTheRequestNeverEnds) {
  Peers peers([](std::shared_ptr<Http2Stream> stream) -> Awaitable<void> {
    co_await send_json(*stream, 200, std::string(300000, 'z'));
  });
  peers.run([&]() -> Awaitable<void> {
    Http2Head head;
    head.method = "POST";
    head.path = "/";
    auto stream = *peers.client->open(head, false);
    auto body = co_await read_body(*stream, 1U << 20U);
    EXPECT_TRUE(body) << (body ? "" : body.error().describe());
    EXPECT_EQ(body.value_or("").size(), 300000U);
    co_await stream->closed();
  });
}

TEST(Http2Session, ATunnelCarriesBothDirectionsAndTheirEnds) {
  std::string asked;
  Peers peers([&](std::shared_ptr<Http2Stream> stream) -> Awaitable<void> {
    asked = stream->request().method + " " + stream->request().path;
    return echo(std::move(stream));
  });
  peers.run([&]() -> Awaitable<void> {
    Http2Head head;
    head.method = "CONNECT";
    head.path = "example.com:443";
    auto stream = *peers.client->open(head, false);
    const auto response = co_await stream->response();
    EXPECT_EQ(response ? response->status : 0, 200);
    EXPECT_TRUE(co_await stream->write("ping"));
    const auto back = co_await stream->read_chunk();
    EXPECT_EQ(back.value_or(""), "ping");
    EXPECT_TRUE(co_await stream->finish());
    const auto end = co_await stream->read_chunk();
    EXPECT_TRUE(end && end->empty());
    co_await stream->closed();
    EXPECT_EQ(stream->reset_code(), 0U);
  });
  EXPECT_EQ(asked, "CONNECT example.com:443");
}

TEST(Http2Session, ARefusedTunnelSaysWhy) {
  Peers peers([](std::shared_ptr<Http2Stream> stream) -> Awaitable<void> {
    const Error error{ErrorCode::kDenied, "no rule allows it", {}};
    co_await send_error(*stream, error);
  });
  peers.run([&]() -> Awaitable<void> {
    Http2Head head;
    head.method = "CONNECT";
    head.path = "[2001:db8::1]:22";
    auto stream = *peers.client->open(head, false);
    const auto response = co_await stream->response();
    EXPECT_EQ(response ? response->status : 0, 403);
    const auto body = co_await read_body(*stream, 1000);
    EXPECT_NE(body.value_or("").find("no rule allows it"), std::string::npos);
  });
}

TEST(Http2Session, TrailersAndInformationalHeadersPassBothWays) {
  HeaderList request_trailers;
  Peers peers([&](std::shared_ptr<Http2Stream> stream) -> Awaitable<void> {
    HeaderList early;
    early.emplace_back("link", "</style.css>");
    EXPECT_TRUE(stream->inform(103, early));
    (void)co_await read_body(*stream, 1000);
    request_trailers = stream->trailers();
    EXPECT_TRUE(stream->respond(200, {}, false));
    EXPECT_TRUE(co_await stream->write("body"));
    HeaderList trailers;
    trailers.emplace_back("grpc-status", "0");
    (void)co_await stream->finish(std::move(trailers));
  });
  HeaderList sent;
  sent.emplace_back("checksum", "abc");
  peers.run([&]() -> Awaitable<void> {
    Http2Head head;
    head.method = "POST";
    head.path = "/";
    head.authority = "example.com";
    auto stream = *peers.client->open(head, false);
    (void)co_await stream->write("x");
    (void)co_await stream->finish(sent);
    const auto early = co_await stream->response();
    EXPECT_EQ(early ? early->status : 0, 103);
    const auto response = co_await stream->response();
    EXPECT_EQ(response ? response->status : 0, 200);
    const auto body = co_await read_body(*stream, 1000);
    EXPECT_EQ(body.value_or(""), "body");
    EXPECT_EQ(stream->trailers().size(), 1U);
  });
  EXPECT_EQ(request_trailers, sent);
}

TEST(Http2Session, AResetReachesTheHandler) {
  bool seen = false;
  Peers peers([&](std::shared_ptr<Http2Stream> stream) -> Awaitable<void> {
    if (stream->request().path == "/again") co_return co_await send_json(*stream, 200, "{}");
    (void)stream->respond(200, {}, false);
    co_await stream->closed();
    seen = true;
  });
  peers.run([&]() -> Awaitable<void> {
    Http2Head head;
    head.method = "GET";
    head.path = "/";
    auto stream = *peers.client->open(head, true);
    (void)co_await stream->response();
    stream->reset();
    co_await stream->closed();
    (void)co_await call(*peers.client, "GET", "/again", "");
  });
  EXPECT_TRUE(seen);
}

TEST(Http2Session, GarbageEndsTheSession) {
  Peers peers(echo, false);
  ASSERT_TRUE(write_all(peers.fds[1], std::string(100000, 'G')));
  peers.io.run_for(std::chrono::seconds(60));
  EXPECT_FALSE(peers.server_end);
  ::close(peers.fds[1]);
}

TEST(Http2Session, AFloodOfResetsEndsTheSession) {
  Peers peers([](std::shared_ptr<Http2Stream> stream) -> Awaitable<void> {
    (void)stream->respond(200, {}, false);
    co_await stream->closed();
  });
  peers.run([&]() -> Awaitable<void> {
    Http2Head head;
    head.method = "GET";
    head.path = "/";
    int opened = 0;
    for (; opened < 2000; ++opened) {
      auto stream = peers.client->open(head, true);
      if (!stream) break;
      auto response = co_await (*stream)->response();
      if (!response) break;
      (*stream)->reset();
    }
    EXPECT_GE(opened, 200);
    EXPECT_LT(opened, 1000);
  });
}

}  // namespace
}  // namespace sbx::wire
