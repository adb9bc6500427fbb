#include "keeper/exec_table.h"

#include <gtest/gtest.h>
#include <sys/socket.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <functional>

#include "base/file.h"
#include "vm/machine_process.h"
#include "wire/length_prefix.h"
#include "wire/resync.h"

namespace sbx::keeper {
namespace {

namespace asio = boost::asio;
using asio::posix::stream_descriptor;

// An ExecTable between a daemon's session and a guest whose commands start and then say nothing for ever.
struct SilentGuest {
  asio::io_context io;
  TemporaryFolder folder = TemporaryFolder::make("sbx-exec-table").value();
  GuestLink link{io.get_executor(),
                 [this]() -> wire::Awaitable<Result<UniqueFd>> { co_return vm::connect_port(folder.path(), 0); }};
  ExecTable table{io.get_executor(), link};
  UniqueFd listener = vm::listen_in(folder.path(), "control.sock").value();
  std::shared_ptr<wire::Http2Session> guest, keeper, daemon;
  int answered = 0;  // requests that the table is done with

  SilentGuest() {
    asio::co_spawn(io, serve_guest(), asio::detached);
    int ends[2];
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends), 0);
    keeper = wire::Http2Session::server(stream_descriptor(io, ends[0]), [this](auto stream) { return handle(stream); });
    daemon = wire::Http2Session::client(stream_descriptor(io, ends[1]));
    for (const auto& session : {keeper, daemon}) asio::co_spawn(io, run(session), asio::detached);
  }
  static wire::Awaitable<void> run(std::shared_ptr<wire::Http2Session> session) { (void)co_await session->run(); }
  wire::Awaitable<void> handle(std::shared_ptr<wire::Http2Stream> stream) {
    co_await table.handle(stream, keeper);
    ++answered;
  }
  wire::Awaitable<void> serve_guest() {
    stream_descriptor waiting(io, ::dup(listener.get()));
    co_await waiting.async_wait(stream_descriptor::wait_read, asio::use_awaitable);
    stream_descriptor port(io, ::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    EXPECT_TRUE(co_await wire::resync_as_guest(port));
    guest = wire::Http2Session::server(std::move(port), [](std::shared_ptr<wire::Http2Stream> stream) {
      return [](std::shared_ptr<wire::Http2Stream> command) -> wire::Awaitable<void> {
        (void)command->respond(200, {}, false);
        co_await command->closed();
      }(std::move(stream));
    });
    co_await run(guest);
  }
  std::shared_ptr<wire::Http2Stream> get(const std::string& path) {
    wire::Http2Head head;
    head.method = "GET";
    head.path = path;
    return daemon->open(head, true).value();
  }
};

TEST(ExecTable, AClientThatOnlyWaitsIsLetGoWhenItHangsUp) {
  SilentGuest fixture;
  bool finished = false;
  asio::co_spawn(
      fixture.io,
      [&]() -> wire::Awaitable<void> {
        EXPECT_TRUE(co_await fixture.link.connect(std::chrono::seconds(60)));
        wire::Http2Head head;
        head.method = "POST";
        head.path = "/exec";
        auto start = fixture.daemon->open(head, false).value();
        const std::string body = wire::length_prefixed(R"({"id":"silent","argv":["sleep","1d"],"detach":true})");
        EXPECT_TRUE(co_await start->write(body));
        EXPECT_TRUE(co_await start->finish());
        EXPECT_TRUE(co_await wire::read_body(*start, 4096));
        auto wait = fixture.get("/exec/silent/wait");
        auto logs = fixture.get("/exec/silent/logs?follow=1");
        EXPECT_TRUE(co_await logs->response());
        EXPECT_EQ(fixture.answered, 1);
        wait->reset();
        logs->reset();
        asio::steady_timer timer(fixture.io);
        for (int i = 0; i < 6000 && fixture.answered < 3; ++i) {
          timer.expires_after(std::chrono::milliseconds(10));
          co_await timer.async_wait(asio::use_awaitable);
        }
        EXPECT_EQ(fixture.answered, 3) << "a request of a client that has gone is still held";
        EXPECT_EQ(fixture.table.detached_running(), 1U) << "the command itself goes on";
        finished = true;
        fixture.io.stop();
      },
      asio::detached);
  fixture.io.run_for(std::chrono::seconds(200));
  EXPECT_TRUE(finished);
}

// The status of the answer to a command that comes while there is no session with the guest, and `meanwhile` happens.
int answer_without_a_session(SilentGuest& fixture, std::function<wire::Awaitable<void>()> meanwhile) {
  int status = 0;
  asio::co_spawn(
      fixture.io,
      [&]() -> wire::Awaitable<void> {
        wire::Http2Head head;
        head.method = "POST";
        head.path = "/exec";
        auto start = fixture.daemon->open(head, false).value();
        const std::string body = wire::length_prefixed(R"({"argv":["true"],"detach":true})");
        EXPECT_TRUE(co_await start->write(body));
        EXPECT_TRUE(co_await start->finish());
        asio::steady_timer timer(fixture.io, std::chrono::milliseconds(50));
        co_await timer.async_wait(asio::use_awaitable);
        EXPECT_EQ(fixture.answered, 0) << "answered at once";
        co_await meanwhile();
        const auto response = co_await start->response();
        status = response ? response->status : -1;
        fixture.io.stop();
      },
      asio::detached);
  fixture.io.run_for(std::chrono::seconds(60));
  return status;
}

TEST(ExecTable, ACommandWaitsForAGuestWhoseSessionHasEnded) {
  SilentGuest fixture;
  EXPECT_EQ(answer_without_a_session(fixture,
                                     [&]() -> wire::Awaitable<void> {
                                       EXPECT_TRUE(co_await fixture.link.connect(std::chrono::seconds(60)));
                                     }),
            200);
}

TEST(ExecTable, ACommandThatComesWhenTheMachineIsDyingIsSaidNotToHaveStarted) {
  SilentGuest fixture;
  EXPECT_EQ(answer_without_a_session(fixture,
                                     [&]() -> wire::Awaitable<void> {
                                       fixture.table.guest_lost("the virtual machine has ended");
                                       co_return;
                                     }),
            409);
}

// The file server may wait for a guest that is parked: it must not be asked about one that stays so.
TEST(ExecTable, ACommandForAMachineThatCannotBeWokenFailsAtOnce) {
  SilentGuest fixture;
  bool asked = false;
  ExecTable table(fixture.io.get_executor(), fixture.link, [&]() -> wire::Awaitable<std::optional<std::uint64_t>> {
    asked = true;
    co_return 0;
  });
  int ends[2];
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends), 0);
  auto keeper = wire::Http2Session::server(stream_descriptor(fixture.io, ends[0]), [&](auto stream) {
    return table.handle(stream, std::weak_ptr<wire::Http2Session>());
  });
  auto daemon = wire::Http2Session::client(stream_descriptor(fixture.io, ends[1]));
  for (const auto& session : {keeper, daemon}) asio::co_spawn(fixture.io, fixture.run(session), asio::detached);
  Parking::Steps steps;
  steps.pause = steps.put_clock_right =
      steps.wait_until_quiet = []() -> wire::Awaitable<Result<void>> { co_return Result<void>{}; };
  steps.resume = []() -> wire::Awaitable<Result<void>> {
    co_return fail(ErrorCode::kUnavailable, "QEMU does not answer");
  };
  int status = 0;
  asio::co_spawn(
      fixture.io,
      [&]() -> wire::Awaitable<void> {
        EXPECT_TRUE(co_await fixture.link.connect(std::chrono::seconds(60)));
        asio::co_spawn(fixture.io, fixture.link.parking().run(std::move(steps)), asio::detached);
        asio::steady_timer timer(fixture.io);
        while (!fixture.link.parking().parked()) {
          timer.expires_after(std::chrono::milliseconds(10));
          co_await timer.async_wait(asio::use_awaitable);
        }
        wire::Http2Head head;
        head.method = "POST";
        head.path = "/exec";
        auto start = daemon->open(head, false).value();
        const std::string body = wire::length_prefixed(R"({"argv":["true"]})");
        EXPECT_TRUE(co_await start->write(body));
        const auto response = co_await start->response();
        status = response ? response->status : -1;
        fixture.link.parking().end();
        fixture.io.stop();
      },
      asio::detached);
  fixture.io.run_for(std::chrono::seconds(60));
  EXPECT_EQ(status, 503);
  EXPECT_FALSE(asked);
}

TEST(OutputRing, TheLastMebibyteIsKeptInWholeFrames) {
  OutputRing ring;
  const std::string piece(100U << 10U, 'x');
  for (int i = 0; i < 50; ++i) ring.push(wire::stdcopy_frame(wire::StdStream::kStdout, piece));
  EXPECT_EQ(ring.next(), 50U);
  EXPECT_EQ(ring.next() - ring.first(), kRingBytes / (piece.size() + 8));
  EXPECT_EQ(ring.at(ring.first()).size(), piece.size() + 8);
}

TEST(OutputRing, AFrameLargerThanTheRingIsStillKept) {
  OutputRing ring;
  ring.push(std::string(2 * kRingBytes, 'x'));
  EXPECT_EQ(ring.next() - ring.first(), 1U);
}

TEST(Rfc3339, IsUtc) { EXPECT_EQ(rfc3339(std::chrono::system_clock::time_point{}), "1970-01-01T00:00:00Z"); }

}  // namespace
}  // namespace sbx::keeper
