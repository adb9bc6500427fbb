// PublishedPorts: what comes in on a sandbox's published ports, carried to the guest by streams of the control port
// (docs/development/protocols.md, "Published ports"). One executor; in the worker's jail.
//
// The guest is not trusted: what it answers on a stream reaches the one client that the stream belongs to. Bounded are
// the connections (the next ones wait in the kernel), the clients of UDP (the one that was silent for longest goes) and
// what is held for each. While a port is published the machine is not parked.
#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <chrono>
#include <map>
#include <memory>
#include <optional>

#include "keeper/guest_link.h"
#include "keeper/supervision.h"
#include "wire/signal.h"

namespace sbx::keeper {

class PublishedPorts {
 public:
  using Clock = std::chrono::system_clock;
  struct Limits {
    std::size_t connections = 1000;
    std::size_t flows = 256;
    std::chrono::milliseconds flow_idle{120'000};  // RFC 4787 section 4.3
    std::chrono::milliseconds answer_deadline{30'000};
  };

  PublishedPorts(boost::asio::any_io_executor executor, GuestLink& guest) : PublishedPorts(executor, guest, Limits{}) {}
  PublishedPorts(boost::asio::any_io_executor executor, GuestLink& guest, Limits limits);
  ~PublishedPorts();
  PublishedPorts(const PublishedPorts&) = delete;
  PublishedPorts& operator=(const PublishedPorts&) = delete;

  // kPublish, kWithdraw, kFlow or kPacket of the supervisor's.
  void handle(Received event);
  // Ends everything; nothing is published any more.
  void close();
  std::size_t ports() const { return ports_.size(); }
  std::size_t connections() const { return connections_; }  // of TCP
  std::size_t flows() const { return flows_.size(); }       // clients of UDP
  // When something last came in; nullopt while a connection is open. The start, if nothing ever did.
  std::optional<Clock::time_point> idle_since() const;

 private:
  struct Port;
  struct Flow;
  void publish(std::int32_t sandbox_port, std::int32_t id, UniqueFd listener);
  void withdraw(std::int32_t id);
  void open_flow(std::int32_t port, std::int32_t id, UniqueFd socket);
  void close_flow(std::int32_t id);
  wire::Awaitable<void> keep_awake();
  wire::Awaitable<void> accept(std::shared_ptr<Port> port);
  wire::Awaitable<void> serve(std::shared_ptr<Port> port, std::shared_ptr<void> connection);
  wire::Awaitable<void> run_flow(std::shared_ptr<Flow> flow);
  wire::Awaitable<void> end_when_idle(std::shared_ptr<Flow> flow);
  wire::Awaitable<void> send_packets(std::shared_ptr<Flow> flow);
  wire::Awaitable<void> return_packets(std::shared_ptr<Flow> flow);

  boost::asio::any_io_executor executor_;
  GuestLink& guest_;
  Limits limits_;
  wire::Signal changed_;
  std::map<std::int32_t, std::shared_ptr<Port>> ports_;
  std::map<std::int32_t, std::shared_ptr<Flow>> flows_;
  std::size_t connections_ = 0;
  Clock::time_point last_used_ = Clock::now();
  Parking::Hold awake_;
};

}  // namespace sbx::keeper
