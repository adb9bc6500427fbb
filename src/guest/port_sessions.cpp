#include "guest/port_sessions.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <boost/asio/buffer.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/write.hpp>
#include <vector>

#include "guest/console.h"
#include "wire/resync.h"

namespace sbx::guest {
namespace {
using namespace std::chrono_literals;
constexpr std::size_t kPiece = 64U << 10U;
constexpr auto kLookAgain = 1000ms;  // should an edge ever be missed
}  // namespace

PortSessions::PortSessions(boost::asio::any_io_executor executor, UniqueFd port, PortPeer peer,
                           MakeSession make_session)
    : executor_(executor),
      port_(executor, port.release()),
      edge_(port_.native_handle()),
      edge_descriptor_(executor, ::fcntl(edge_.fd(), F_DUPFD_CLOEXEC, 3)),
      make_session_(std::move(make_session)),
      filter_(peer) {}

Awaitable<void> PortSessions::run() {
  std::vector<char> buffer(kPiece);
  for (;;) {
    const auto [error, size] = co_await port_.async_read_some(boost::asio::buffer(buffer), kNoThrow);
    if (error || size == 0) {
      co_await end_session();
      co_await wait_for_host();
      continue;
    }
    if (session_ && session_->ended.is_set()) co_await end_session();
    const std::size_t more = read_on(std::span(buffer).subspan(size));
    co_await take({buffer.data(), size + more});
  }
}

// A port gives at most a page a read. What has come is taken together, so that the way from here (the session, its
// frames, a connection's socket, whoever reads that) is gone once for all of it and not for each page.
std::size_t PortSessions::read_on(std::span<char> buffer) {
  std::size_t size = 0;
  while (size < buffer.size()) {
    const ssize_t more = ::read(port_.native_handle(), buffer.data() + size, buffer.size() - size);
    if (more <= 0) break;  // nothing there, or no host: the next wait tells
    size += static_cast<std::size_t>(more);
  }
  return size;
}

Awaitable<void> PortSessions::take(std::string_view input) {
  std::string clean;
  while (!input.empty()) {
    clean.clear();
    const auto nonce = filter_.feed(input, clean);
    if (session_ && !clean.empty()) {
      const auto [error, size] =
          co_await boost::asio::async_write(session_->near, boost::asio::buffer(clean), kNoThrow);
      if (error && !nonce) co_await end_session();
    }
    if (nonce) co_await start_session(*nonce);
  }
}

Awaitable<void> PortSessions::start_session(Nonce nonce) {
  if (session_) {
    session_->http->close();
    co_await end_session();
  }
  // end_session() has reset the filter to scanning; this session's bytes are next.
  filter_.begin(nonce);
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) != 0) {
    console_line("no socketpair for a session");
    co_return;
  }
  auto session = std::make_shared<Session>(executor_, ends[0]);
  session->http = make_session_(Descriptor(executor_, ends[1]));
  session_ = session;
  std::string echo(wire::kResyncEchoMagic);
  echo.append(nonce.data(), nonce.size());
  const bool sent = co_await write_port(echo);
  if (!sent) console_line("a port does not take the echo");
  boost::asio::co_spawn(executor_, drive(session), boost::asio::detached);
  boost::asio::co_spawn(executor_, pump_output(session), boost::asio::detached);
}

Awaitable<void> PortSessions::drive(std::shared_ptr<Session> session) {
  const auto result = co_await session->http->run();
  if (!result) console_line("session of a port: " + result.error().describe());
  session->ended.set();
}

Awaitable<void> PortSessions::end_session() {
  filter_.reset();
  const auto session = std::exchange(session_, nullptr);
  if (!session) co_return;
  session->http->close();
  boost::system::error_code ignored;
  session->near.close(ignored);
  port_.cancel(ignored);  // a write to a host that has gone
  co_await session->ended.wait();
  co_await session->output_ended.wait();
}

Awaitable<bool> PortSessions::write_port(std::string_view data) {
  while (!data.empty()) {
    const auto [error, size] = co_await port_.async_write_some(boost::asio::buffer(data.data(), data.size()), kNoThrow);
    if (error || size == 0) co_return false;  // 0: the host side is closed
    data.remove_prefix(size);
  }
  co_return true;
}

Awaitable<void> PortSessions::pump_output(std::shared_ptr<Session> session) {
  std::vector<char> buffer(kPiece);
  for (;;) {
    const auto [error, size] = co_await session->near.async_read_some(boost::asio::buffer(buffer), kNoThrow);
    if (error || size == 0) break;
    const bool written = co_await write_port({buffer.data(), size});
    if (!written) break;
  }
  session->output_ended.set();
}

Awaitable<void> PortSessions::wait_for_host() {
  for (;;) {
    edge_.consume();
    if (PortEdge::host_is_there(port_.native_handle())) co_return;
    boost::asio::steady_timer look_again(executor_, kLookAgain);
    look_again.async_wait([this](boost::system::error_code error) {
      if (!error) edge_descriptor_.cancel();
    });
    co_await edge_descriptor_.async_wait(Descriptor::wait_read, kNoThrow);
  }
}

}  // namespace sbx::guest
