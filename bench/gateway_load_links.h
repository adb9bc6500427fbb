// How gateway_load reaches the server: straight, through a proxy's CONNECT, or as a guest through the network port of
// sbx-gateway. Made to cost little, so that what is measured is the other side. One thread, one epoll.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "base/unique_fd.h"

namespace sbx::bench {

// One TCP connection to the server, as seen from its client.
class Link {
 public:
  virtual ~Link() = default;
  virtual void send(std::string_view data) = 0;
  // Set by the owner before anything can arrive. An empty piece is the end.
  std::function<void()> opened;
  std::function<void(std::string_view)> received;
};

class Links {
 public:
  virtual ~Links() = default;
  // Ends when the Link is destroyed.
  virtual std::unique_ptr<Link> open() = 0;
  // After each round of events: what was held back is sent.
  virtual void flush() {}
};

// What waits for a descriptor's events (epoll_event.data.ptr); told by run_once().
class Watched {
 public:
  virtual ~Watched() = default;
  virtual void ready(std::uint32_t events) = 0;
};

class Loop {
 public:
  Loop();
  void watch(int fd, std::uint32_t events, Watched* watched, bool change = false);
  // Waits for events, and tells whom they concern. A Watched that is destroyed meanwhile must be forgotten first.
  void run_once();
  void forget(Watched* watched);

 private:
  UniqueFd epoll_;
  struct Batch;
  Batch* batch_ = nullptr;
};

[[noreturn]] void give_up(const std::string& why);

// `connect`: NAME:PORT that the proxy at `address` is asked for; empty: `address` is the server.
std::unique_ptr<Links> tcp_links(Loop& loop, const std::string& address, const std::string& connect);
// `port`: the guest's end of the network port.
std::unique_ptr<Links> guest_links(Loop& loop, UniqueFd port, const std::string& connect);

}  // namespace sbx::bench
