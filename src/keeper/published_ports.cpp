#include "keeper/published_ports.h"

#include <spdlog/spdlog.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <deque>
#include <set>
#include <string>
#include <vector>

#include "wire/capsules.h"
#include "wire/tcp_tunnel.h"

namespace sbx::keeper {

namespace asio = boost::asio;
using asio::ip::tcp;
using wire::Awaitable;

namespace {

constexpr auto kToken = asio::as_tuple(asio::use_awaitable);
constexpr std::chrono::seconds kFarewell{5};
constexpr std::size_t kBatch = 64U << 10U;
constexpr std::size_t kMaxPending = 16;  // packets that came before their client's own socket did

wire::Http2Head tcp_request(std::int32_t port) {
  wire::Http2Head head;
  head.method = "CONNECT";
  head.path = "127.0.0.1:" + std::to_string(port);
  return head;
}

wire::Http2Head udp_request(std::int32_t port) {
  wire::Http2Head head;
  head.method = "CONNECT";
  head.protocol = "connect-udp";
  head.path = "/.well-known/masque/udp/127.0.0.1/" + std::to_string(port) + "/";
  head.headers.emplace_back("capsule-protocol", "?1");
  return head;
}

std::span<char> packet_buffer() {
  static std::array<char, wire::kLargestDatagram + 1> buffer;  // one thread, and never across a co_await
  return buffer;
}

// Waits for the answer, at most until the deadline: then the stream is reset.
Awaitable<Result<wire::Http2Head>> answer_of(wire::Http2Stream& stream, std::chrono::milliseconds deadline) {
  asio::steady_timer timer(co_await asio::this_coro::executor, deadline);
  timer.async_wait([weak = stream.weak_from_this()](auto error) {
    if (const auto late = weak.lock(); late && !error) late->reset();
  });
  auto response = co_await stream.response();
  timer.cancel();
  co_return response;
}

// Ends our direction and waits for the end of the guest's; one that does not come to it is reset.
Awaitable<void> end(std::shared_ptr<wire::Http2Stream> stream) {
  asio::steady_timer timer(co_await asio::this_coro::executor, kFarewell);
  timer.async_wait([weak = std::weak_ptr(stream)](auto error) {
    if (const auto late = weak.lock(); late && !error) late->reset();
  });
  (void)co_await stream->finish();
  co_await stream->closed();
  timer.cancel();
}

}  // namespace

struct PublishedPorts::Port {
  explicit Port(const asio::any_io_executor& executor) : acceptor(executor) {}
  std::int32_t id = 0;
  std::int32_t sandbox_port = 0;
  bool open = true;
  tcp::acceptor acceptor;  // not open for UDP
  std::set<wire::TcpSocket> sockets;
};

struct PublishedPorts::Flow {
  Flow(const asio::any_io_executor& executor, int fd) : socket(executor, fd), idle(executor) {}
  std::int32_t id = 0;
  std::int32_t port = 0;
  std::int32_t sandbox_port = 0;
  bool open = true;
  std::chrono::steady_clock::time_point last_used = std::chrono::steady_clock::now();
  asio::posix::stream_descriptor socket;  // connected to the client
  asio::steady_timer idle;
  std::deque<std::string> pending;
  std::shared_ptr<wire::Http2Stream> stream;
};

PublishedPorts::PublishedPorts(asio::any_io_executor executor, GuestLink& guest, Limits limits)
    : executor_(executor), guest_(guest), limits_(limits), changed_(executor) {}

PublishedPorts::~PublishedPorts() { close(); }

void PublishedPorts::handle(Received event) {
  const Message& message = event.message;
  switch (static_cast<Event>(message.kind)) {
    case Event::kPublish:
      return publish(message.value, message.more, std::move(event.fd));
    case Event::kWithdraw:
      return withdraw(message.more);
    case Event::kFlow:
      return open_flow(message.value, message.more, std::move(event.fd));
    case Event::kPacket: {
      const auto flow = flows_.find(message.more);
      if (flow == flows_.end() || flow->second->pending.size() >= kMaxPending) return;
      const auto buffer = packet_buffer();
      const ssize_t size = ::read(event.fd.get(), buffer.data(), buffer.size());
      if (size < 0) return;
      flow->second->pending.emplace_back(buffer.data(), static_cast<std::size_t>(size));
      boost::system::error_code ignored;
      flow->second->socket.cancel(ignored);
      return;
    }
    default:
      return;
  }
}

void PublishedPorts::close() {
  while (!ports_.empty()) withdraw(ports_.begin()->first);
  awake_ = {};
}

std::optional<PublishedPorts::Clock::time_point> PublishedPorts::idle_since() const {
  if (connections_ > 0) return std::nullopt;
  return last_used_;
}

void PublishedPorts::publish(std::int32_t sandbox_port, std::int32_t id, UniqueFd listener) {
  auto port = std::make_shared<Port>(executor_);
  port->id = id;
  port->sandbox_port = sandbox_port;
  const bool first = ports_.empty();
  ports_[id] = port;
  if (first) asio::co_spawn(executor_, keep_awake(), asio::detached);
  if (!listener.valid()) return;
  boost::system::error_code error;
  port->acceptor.assign(tcp::v4(), listener.release(), error);
  if (error) return spdlog::error("a published port cannot be served: {}", error.message());
  asio::co_spawn(executor_, accept(port), asio::detached);
}

void PublishedPorts::withdraw(std::int32_t id) {
  const auto found = ports_.find(id);
  if (found == ports_.end()) return;
  const auto port = found->second;
  ports_.erase(found);
  port->open = false;
  boost::system::error_code ignored;
  port->acceptor.close(ignored);
  for (const auto& socket : port->sockets) wire::cut(*socket);
  std::vector<std::int32_t> mine;
  for (const auto& [flow, held] : flows_) {
    if (held->port == id) mine.push_back(flow);
  }
  for (const auto flow : mine) close_flow(flow);
  changed_.notify();
  if (ports_.empty()) awake_ = {};
}

Awaitable<void> PublishedPorts::keep_awake() {
  auto hold = co_await guest_.parking().wake();
  if (hold && !ports_.empty()) awake_ = std::move(*hold);
}

Awaitable<void> PublishedPorts::accept(std::shared_ptr<Port> port) {
  while (port->open) {
    if (connections_ >= limits_.connections) {
      co_await changed_.wait();
      continue;
    }
    auto [error, socket] = co_await port->acceptor.async_accept(kToken);
    if (!port->open) co_return;
    if (error) {
      asio::steady_timer pause(executor_, std::chrono::milliseconds(100));  // out of descriptors, most likely
      (void)co_await pause.async_wait(kToken);
      continue;
    }
    auto shared = std::make_shared<tcp::socket>(std::move(socket));
    ++connections_;
    port->sockets.insert(shared);
    asio::co_spawn(executor_, serve(port, shared), [this, port, shared](std::exception_ptr) {
      port->sockets.erase(shared);
      --connections_;
      last_used_ = Clock::now();
      changed_.notify();
    });
  }
}

Awaitable<void> PublishedPorts::serve(std::shared_ptr<Port> port, std::shared_ptr<void> connection) {
  const auto socket = std::static_pointer_cast<tcp::socket>(connection);
  auto opened = co_await guest_.open(tcp_request(port->sandbox_port));
  if (!opened) co_return wire::cut(*socket);
  const auto response = co_await answer_of(*opened->stream, limits_.answer_deadline);
  if (!response || response->status / 100 != 2) {
    wire::cut(*socket);
    co_return co_await end(opened->stream);  // not a reset, of which there may be only so many
  }
  co_await wire::carry(socket, opened->stream);
}

void PublishedPorts::open_flow(std::int32_t port, std::int32_t id, UniqueFd socket) {
  const auto found = ports_.find(port);
  if (found == ports_.end() || !socket.valid()) return;
  if (flows_.size() >= limits_.flows) {
    const auto oldest = std::ranges::min_element(flows_, {}, [](const auto& entry) { return entry.second->last_used; });
    close_flow(std::int32_t{oldest->first});
  }
  auto flow = std::make_shared<Flow>(executor_, socket.release());
  flow->id = id;
  flow->port = port;
  flow->sandbox_port = found->second->sandbox_port;
  flows_[id] = flow;
  last_used_ = Clock::now();
  asio::co_spawn(executor_, run_flow(flow), [this, id](std::exception_ptr) { close_flow(id); });
}

void PublishedPorts::close_flow(std::int32_t id) {
  const auto found = flows_.find(id);
  if (found == flows_.end()) return;
  const auto flow = found->second;
  flows_.erase(found);
  flow->open = false;
  boost::system::error_code ignored;
  flow->socket.close(ignored);
  flow->idle.cancel();
  if (flow->stream) asio::co_spawn(executor_, end(flow->stream), asio::detached);
  last_used_ = Clock::now();
}

Awaitable<void> PublishedPorts::run_flow(std::shared_ptr<Flow> flow) {
  auto opened = co_await guest_.open(udp_request(flow->sandbox_port));
  if (!opened) co_return;
  if (!flow->open) co_return co_await end(opened->stream);
  flow->stream = opened->stream;
  asio::co_spawn(executor_, return_packets(flow), asio::detached);
  asio::co_spawn(executor_, end_when_idle(flow), asio::detached);
  co_await send_packets(flow);
  close_flow(flow->id);
  co_await opened->stream->closed();
}

Awaitable<void> PublishedPorts::end_when_idle(std::shared_ptr<Flow> flow) {
  while (flow->open && std::chrono::steady_clock::now() < flow->last_used + limits_.flow_idle) {
    flow->idle.expires_at(flow->last_used + limits_.flow_idle);
    (void)co_await flow->idle.async_wait(kToken);
  }
  close_flow(flow->id);
}

// From the client to the guest. A guest that does not read holds this client back; what does not fit into the kernel's
// buffer is lost, as packets may be.
Awaitable<void> PublishedPorts::send_packets(std::shared_ptr<Flow> flow) {
  while (flow->open) {
    std::string capsules;
    for (; !flow->pending.empty(); flow->pending.pop_front()) wire::append_datagram(capsules, flow->pending.front());
    const auto buffer = packet_buffer();
    while (capsules.size() < kBatch) {
      const ssize_t size = ::recv(flow->socket.native_handle(), buffer.data(), buffer.size(), MSG_DONTWAIT);
      if (size < 0) break;
      wire::append_datagram(capsules, {buffer.data(), static_cast<std::size_t>(size)});
    }
    if (capsules.empty()) {
      (void)co_await flow->socket.async_wait(asio::posix::descriptor_base::wait_read, kToken);
      continue;
    }
    flow->last_used = std::chrono::steady_clock::now();
    if (!co_await flow->stream->write(capsules)) co_return;
  }
}

// From the guest to the client, and to nobody else: the socket is connected.
Awaitable<void> PublishedPorts::return_packets(std::shared_ptr<Flow> flow) {
  const auto response = co_await answer_of(*flow->stream, limits_.answer_deadline);
  if (response && response->status / 100 == 2) {
    wire::DatagramReader reader([&flow](std::string_view payload) {
      if (!flow->open) return;
      flow->last_used = std::chrono::steady_clock::now();
      (void)::send(flow->socket.native_handle(), payload.data(), payload.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
    });
    for (;;) {
      const auto chunk = co_await flow->stream->read_chunk();
      if (!chunk || chunk->empty() || !reader.feed(*chunk)) break;
    }
  }
  close_flow(flow->id);
}

}  // namespace sbx::keeper
