// PortSessions: HTTP/2 sessions, one after another, on a virtio port. Between port and session lies a socketpair, so
// that the session sees nothing but its own bytes: PortFilter cuts the resynchronisation out, and a host side that goes
// away and comes back ends one session and begins the next. Thread safety: none; the event loop only.
#pragma once

#include <boost/asio/posix/stream_descriptor.hpp>
#include <functional>
#include <memory>
#include <span>
#include <string>

#include "base/unique_fd.h"
#include "guest/async_event.h"
#include "guest/port_filter.h"
#include "guest/virtio_port.h"
#include "wire/http2_session.h"

namespace sbx::guest {

class PortSessions {
 public:
  using Descriptor = boost::asio::posix::stream_descriptor;
  // Makes the session that is to speak on a transport: a server's or a client's.
  using MakeSession = std::function<std::shared_ptr<wire::Http2Session>(Descriptor)>;

  // `port` is open for reading and writing, non-blocking. `peer` is what the host is.
  PortSessions(boost::asio::any_io_executor executor, UniqueFd port, PortPeer peer, MakeSession make_session);
  // Runs for ever.
  Awaitable<void> run();

 private:
  struct Session {
    Session(boost::asio::any_io_executor executor, int near_end)
        : near(executor, near_end), ended(executor), output_ended(executor) {}
    Descriptor near;
    std::shared_ptr<wire::Http2Session> http;
    AsyncEvent ended;
    AsyncEvent output_ended;
  };

  std::size_t read_on(std::span<char> buffer);
  Awaitable<void> take(std::string_view input);
  Awaitable<void> start_session(Nonce nonce);
  Awaitable<void> end_session();
  Awaitable<void> wait_for_host();
  Awaitable<bool> write_port(std::string_view data);
  Awaitable<void> pump_output(std::shared_ptr<Session> session);
  static Awaitable<void> drive(std::shared_ptr<Session> session);

  boost::asio::any_io_executor executor_;
  Descriptor port_;
  PortEdge edge_;
  Descriptor edge_descriptor_;
  MakeSession make_session_;
  PortFilter filter_;
  std::shared_ptr<Session> session_;
};

}  // namespace sbx::guest
