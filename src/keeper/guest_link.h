// GuestLink: the control port's HTTP/2 session with sbx-guest. One executor.
//
// The guest is not trusted: whatever it does to the session ends the session at worst. After that every call fails with
// kUnavailable until connect() has succeeded again. Everything but call_now() wakes a parked machine first.
#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <chrono>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "base/result.h"
#include "base/unique_fd.h"
#include "keeper/parking.h"
#include "wire/http2_session.h"

namespace sbx::keeper {

class GuestLink {
 public:
  using Duration = std::chrono::steady_clock::duration;

  // A new connection to the control port.
  using Connector = std::function<wire::Awaitable<Result<UniqueFd>>()>;

  GuestLink(boost::asio::any_io_executor executor, Connector connector)
      : executor_(executor), connector_(std::move(connector)), parking_(executor), changed_(executor) {}
  ~GuestLink() { disconnect(); }
  GuestLink(const GuestLink&) = delete;
  GuestLink& operator=(const GuestLink&) = delete;

  // Connects to the control port, resynchronises and starts the session.
  wire::Awaitable<Result<void>> connect(std::chrono::milliseconds deadline);
  void disconnect();
  bool connected() const { return session_ && session_->alive(); }
  // Returns when there is no session.
  wire::Awaitable<void> lost();
  // Returns when there is a session, none will ever be (give_up()), or `deadline` is over.
  wire::Awaitable<void> connected_within(Duration deadline);
  // The machine has ended: nobody will connect again, and what comes now fails with kConflict.
  void give_up();
  // A JSON call; kTimeout after `deadline` (the session stays).
  wire::Awaitable<Result<nlohmann::json>> call(std::string method, std::string path, nlohmann::json body,
                                               Duration deadline = std::chrono::seconds(20));
  // A call that takes the machine as it is.
  wire::Awaitable<Result<nlohmann::json>> call_now(std::string method, std::string path, nlohmann::json body,
                                                   Duration deadline = std::chrono::seconds(20));
  struct OpenStream {
    std::shared_ptr<wire::Http2Stream> stream;
    Parking::Hold hold;  // to be kept as long as the stream is in use
  };
  wire::Awaitable<Result<OpenStream>> open(wire::Http2Head head);
  Parking& parking() { return parking_; }

 private:
  boost::asio::any_io_executor executor_;
  Connector connector_;
  std::shared_ptr<wire::Http2Session> session_;
  Parking parking_;
  bool given_up_ = false;
  wire::Signal changed_;  // a session has begun or ended, or nobody will begin one
};

}  // namespace sbx::keeper
