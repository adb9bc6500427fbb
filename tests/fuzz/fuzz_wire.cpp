// What a guest may put on the control port: bytes for the HTTP/2 session (as client and as server), stdcopy frames and
// resynchronisation. The first byte chooses.
#include <sys/socket.h>
#include <unistd.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <cstdint>

#include "base/file.h"
#include "wire/http2_session.h"
#include "wire/resync.h"
#include "wire/stdcopy.h"

namespace {

namespace asio = boost::asio;
using sbx::wire::Awaitable;
using sbx::wire::Http2Session;
using sbx::wire::Http2Stream;

void feed_session(std::string_view bytes, bool server) {
  int fds[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) != 0) return;
  const sbx::UniqueFd peer(fds[1]);
  asio::io_context io;
  asio::posix::stream_descriptor transport(io, fds[0]);
  const auto handler = [](std::shared_ptr<Http2Stream> stream) -> Awaitable<void> {
    auto body = co_await sbx::wire::read_body(*stream, 4096);
    co_await sbx::wire::send_json(*stream, body ? 200 : 400, "{}");
  };
  auto session =
      server ? Http2Session::server(std::move(transport), handler) : Http2Session::client(std::move(transport));
  asio::co_spawn(
      io, [session]() -> Awaitable<void> { (void)co_await session->run(); }, asio::detached);
  if (!server) {
    sbx::wire::Http2Head head;
    head.method = "GET";
    head.path = "/";
    if (auto stream = session->open(head, true)) {
      asio::co_spawn(
          io,
          [opened = *stream]() -> Awaitable<void> {
            (void)co_await opened->response();
            (void)co_await sbx::wire::read_body(*opened, 4096);
          },
          asio::detached);
    }
  }
  (void)sbx::write_all(peer.get(), bytes.substr(0, 64U << 10U));
  ::shutdown(peer.get(), SHUT_WR);
  io.run_for(std::chrono::seconds(2));
  session->close();
  io.restart();
  io.run_for(std::chrono::seconds(1));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  std::string_view bytes(reinterpret_cast<const char*>(data) + 1, size - 1);
  switch (data[0] % 4) {
    case 0:
      feed_session(bytes, false);
      break;
    case 1:
      feed_session("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + std::string(bytes), true);
      break;
    case 2: {
      std::size_t seen = 0;
      sbx::wire::StdcopyReader reader([&](sbx::wire::StdStream, std::string_view piece) { seen += piece.size(); });
      if (reader.feed(bytes) && seen > size) __builtin_trap();
      break;
    }
    default: {
      sbx::wire::ResyncScanner scanner(sbx::wire::kResyncEchoMagic);
      while (!bytes.empty()) {
        (void)scanner.feed(bytes);
        if (scanner.needed() == 0 || scanner.needed() > 24) __builtin_trap();
      }
    }
  }
  return 0;
}
