#include "wire/resync.h"

#include <gtest/gtest.h>
#include <sys/socket.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>

#include "base/file.h"

namespace sbx::wire {
namespace {

namespace asio = boost::asio;
using asio::posix::stream_descriptor;

struct Pair {
  asio::io_context io;
  int host_fd = -1;
  int guest_fd = -1;
  Pair() {
    int fds[2];
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    host_fd = fds[0];
    guest_fd = fds[1];
  }
};

TEST(Resync, BothSidesAgreeAfterLeftoversOfAnOldSession) {
  Pair pair;
  stream_descriptor host(pair.io, pair.host_fd);
  stream_descriptor guest(pair.io, pair.guest_fd);
  const std::string old(50000, '\xf5');
  ASSERT_TRUE(write_all(pair.guest_fd, old + "\xf5SBXACK1" + std::string(16, 'x')));
  ASSERT_TRUE(write_all(pair.host_fd, "\xf5\xf5SBX half of a message"));
  Result<void> host_result = fail(ErrorCode::kInternal, "not run");
  Result<void> guest_result = fail(ErrorCode::kInternal, "not run");
  asio::co_spawn(
      pair.io,
      [&]() -> asio::awaitable<void> { host_result = co_await resync_as_host(host, std::chrono::seconds(60)); },
      asio::detached);
  asio::co_spawn(
      pair.io, [&]() -> asio::awaitable<void> { guest_result = co_await resync_as_guest(guest); }, asio::detached);
  pair.io.run();
  EXPECT_TRUE(host_result) << host_result.error().describe();
  EXPECT_TRUE(guest_result) << guest_result.error().describe();
}

TEST(Resync, ASilentGuestIsATimeoutAndAFloodIsRefused) {
  {
    Pair pair;
    stream_descriptor host(pair.io, pair.host_fd);
    Result<void> result;
    asio::co_spawn(
        pair.io,
        [&]() -> asio::awaitable<void> { result = co_await resync_as_host(host, std::chrono::milliseconds(300)); },
        asio::detached);
    pair.io.run();
    EXPECT_EQ(result.error().code, ErrorCode::kTimeout);
    ::close(pair.guest_fd);
  }
  ResyncScanner scanner(kResyncEchoMagic);
  const std::string flood(100000, 'x');
  std::string_view input = flood;
  EXPECT_FALSE(scanner.feed(input));
  EXPECT_EQ(scanner.needed(), 24U);
}

TEST(Resync, TheScannerNeverReadsPastTheNonce) {
  const std::string message = "\xf5SBX\xf5SBXSYN1" + std::string(16, 'n') + "tail";
  ResyncScanner scanner(kResyncMagic);
  std::string_view input = message;
  auto nonce = scanner.feed(input);
  ASSERT_TRUE(nonce);
  EXPECT_EQ(std::string(nonce->data(), nonce->size()), std::string(16, 'n'));
  EXPECT_EQ(input, "tail");
}

}  // namespace
}  // namespace sbx::wire
