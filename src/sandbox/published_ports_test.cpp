// Published ports from the host's socket to a server on the guest's loopback, as sbxd, the keeper's two halves and
// sbx-guest do it together; only the machine in between is missing.
#include "keeper/published_ports.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/time.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ip/udp.hpp>
#include <boost/asio/use_future.hpp>
#include <boost/asio/write.hpp>
#include <future>
#include <thread>

#include "base/file.h"
#include "guest/forward.h"
#include "keeper/port_table.h"
#include "sandbox/port_binding.h"
#include "sandbox/port_orders.h"
#include "vm/machine_process.h"
#include "wire/capsules.h"
#include "wire/resync.h"
#include "wire/tcp_tunnel.h"

namespace sbx::sandbox {
namespace {

namespace asio = boost::asio;
using namespace std::chrono_literals;
using asio::ip::tcp;
using asio::ip::udp;
using asio::posix::stream_descriptor;
using Stream = std::shared_ptr<wire::Http2Stream>;
constexpr auto kToken = asio::as_tuple(asio::use_awaitable);

UniqueFd dial(std::int64_t port, int type = SOCK_STREAM) {
  UniqueFd socket(::socket(AF_INET, type | SOCK_CLOEXEC, 0));
  const timeval patience{60, 0};
  ::setsockopt(socket.get(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<std::uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) return UniqueFd();
  return socket;
}

// What there is to the end; `error` is the errno of the last read, 0 for an orderly end.
std::string read_to_end(int socket, int& error) {
  std::string all;
  char buffer[65536];
  ssize_t n = 0;
  while ((n = ::recv(socket, buffer, sizeof buffer, 0)) > 0) all.append(buffer, static_cast<std::size_t>(n));
  error = n < 0 ? errno : 0;
  return all;
}

std::string echo(std::int64_t port, const std::string& text) {
  const auto socket = dial(port);
  std::thread writer([&] {
    (void)write_all(socket.get(), text);
    ::shutdown(socket.get(), SHUT_WR);
  });
  int error = 0;
  auto answer = read_to_end(socket.get(), error);
  writer.join();
  return answer;
}

std::string packet(const UniqueFd& socket, const std::string& text) {
  std::string answer(65536, '\0');
  if (::send(socket.get(), text.data(), text.size(), 0) < 0) return "";
  const ssize_t n = ::recv(socket.get(), answer.data(), answer.size(), 0);
  answer.resize(n > 0 ? static_cast<std::size_t>(n) : 0);
  return answer;
}

std::size_t open_files() {
  std::size_t count = 0;
  for (const auto& fd : std::filesystem::directory_iterator("/proc/self/fd")) count += fd.exists() ? 1 : 0;
  return count;
}

class PublishedPortsTest : public ::testing::Test {
 protected:
  using Guest = std::function<wire::Awaitable<void>(Stream)>;

  void start(Guest guest = guest::serve_forward, keeper::PublishedPorts::Limits limits = {}) {
    ports_ = std::make_unique<keeper::PublishedPorts>(io_.get_executor(), link_, limits);
    ASSERT_TRUE(table_.listen(folder_.path()));
    asio::co_spawn(io_, serve_guest(std::move(guest)), asio::detached);
    asio::co_spawn(io_, supervise(), asio::detached);
    loop_ = std::thread([this] { io_.run(); });
    on_loop([&] { return link_.connect(60s); });
  }
  void TearDown() override {
    on_loop([&]() -> wire::Awaitable<Result<void>> {
      over_ = true;
      table_.close();
      ports_->close();
      link_.disconnect();
      boost::system::error_code ignored;
      for (auto& acceptor : servers_) acceptor.close(ignored);
      for (auto& socket : packet_servers_) socket.close(ignored);
      co_return Result<void>{};
    });
    loop_.join();
  }
  // Runs a coroutine on the loop and waits for it.
  Result<void> on_loop(std::function<wire::Awaitable<Result<void>>()> flow) {
    return asio::co_spawn(io_, std::move(flow), asio::use_future).get();
  }

  // The supervisor's poll loop.
  wire::Awaitable<void> supervise() {
    asio::steady_timer timer(io_);
    while (!over_) {
      for (const int fd : table_.watched()) {
        pollfd watched{fd, POLLIN, 0};
        if (::poll(&watched, 1, 0) > 0) table_.take(fd);
      }
      timer.expires_after(1ms);
      (void)co_await timer.async_wait(kToken);
    }
  }
  void tell(keeper::Event event, std::int32_t value, std::int32_t more, int fd) {
    keeper::Received received;
    received.message = keeper::message(event, value, more);
    if (fd >= 0) received.fd.reset(::dup(fd));
    ports_->handle(std::move(received));
  }
  wire::Awaitable<void> serve_guest(Guest guest) {
    stream_descriptor waiting(io_, ::dup(control_.get()));
    co_await waiting.async_wait(stream_descriptor::wait_read, asio::use_awaitable);
    stream_descriptor port(io_, ::accept4(control_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    (void)co_await wire::resync_as_guest(port);
    wire::Http2Limits limits;
    limits.extended_connect = true;
    auto session = wire::Http2Session::server(std::move(port), std::move(guest), limits);
    session_ = session;
    (void)co_await session->run();
  }

  // Servers of the guest's; they run on the loop.
  std::uint16_t serve(std::function<wire::Awaitable<void>(std::shared_ptr<tcp::socket>)> handler) {
    auto& acceptor = servers_.emplace_back(io_, tcp::endpoint(asio::ip::address_v4::loopback(), 0));
    acceptor.listen(1000);
    asio::co_spawn(io_, accept(acceptor, std::move(handler)), asio::detached);
    return acceptor.local_endpoint().port();
  }
  wire::Awaitable<void> accept(tcp::acceptor& acceptor,
                               std::function<wire::Awaitable<void>(std::shared_ptr<tcp::socket>)> handler) {
    for (;;) {
      auto [error, socket] = co_await acceptor.async_accept(kToken);
      if (error) co_return;
      asio::co_spawn(io_, handler(std::make_shared<tcp::socket>(std::move(socket))), asio::detached);
    }
  }
  static wire::Awaitable<void> serve_echo(std::shared_ptr<tcp::socket> socket) {
    std::vector<char> buffer(65536);
    for (;;) {
      const auto [error, size] = co_await socket->async_read_some(asio::buffer(buffer), kToken);
      if (error) break;
      const auto [failed, written] = co_await asio::async_write(*socket, asio::buffer(buffer.data(), size), kToken);
      if (failed) break;
    }
    boost::system::error_code ignored;
    socket->shutdown(tcp::socket::shutdown_both, ignored);
  }
  // Answers each packet with its client's port and the packet.
  std::uint16_t serve_packets() {
    auto& socket = packet_servers_.emplace_back(io_, udp::endpoint(asio::ip::address_v4::loopback(), 0));
    asio::co_spawn(io_, answer_packets(socket), asio::detached);
    return socket.local_endpoint().port();
  }
  static wire::Awaitable<void> answer_packets(udp::socket& socket) {
    std::vector<char> buffer(65536);
    for (;;) {
      udp::endpoint client;
      const auto [error, size] = co_await socket.async_receive_from(asio::buffer(buffer), client, kToken);
      if (error == asio::error::operation_aborted) co_return;
      if (error) continue;
      const std::string answer = std::to_string(client.port()) + " " + std::string(buffer.data(), size);
      boost::system::error_code ignored;
      socket.send_to(asio::buffer(answer), client, 0, ignored);
    }
  }

  // Publishes a port of the guest's; the port of the host.
  std::int64_t publish(const std::string& spec) {
    auto bound = bind_spec(parse_port_spec(spec).value()).value();
    names_.push_back(bound.front().port.name());
    const auto order = keeper::message(keeper::Order::kPublish, names_.back(),
                                       static_cast<std::int32_t>(bound.front().port.sandbox_port),
                                       bound.front().port.protocol == "udp");
    const int fd = bound.front().socket.get();
    const auto done = on_loop([&] { return order_ports(folder_.path(), order, fd); });
    EXPECT_TRUE(done) << done.error().describe();
    return bound.front().port.host_port;
  }
  Result<void> order(keeper::Order kind, const std::string& name) {
    return on_loop([&] { return order_ports(folder_.path(), keeper::message(kind, name)); });
  }
  template <typename T>
  T now(std::function<T()> question) {
    return asio::post(io_, asio::use_future(std::move(question))).get();
  }
  bool eventually(std::function<bool()> holds) {
    for (int i = 0; i < 6000; ++i) {
      if (now<bool>(holds)) return true;
      ::poll(nullptr, 0, 5);
    }
    return false;
  }

  asio::io_context io_{1};
  TemporaryFolder folder_ = TemporaryFolder::make("sbx-ports").value();
  UniqueFd control_ = vm::listen_in(folder_.path(), "control.sock").value();
  keeper::GuestLink link_{io_.get_executor(), [this]() -> wire::Awaitable<Result<UniqueFd>> {
                            co_return vm::connect_port(folder_.path(), 0);
                          }};
  std::unique_ptr<keeper::PublishedPorts> ports_;
  keeper::PortTable table_{[this](auto event, auto value, auto more, int fd) { tell(event, value, more, fd); },
                           [] { return true; }};
  std::list<tcp::acceptor> servers_;
  std::list<udp::socket> packet_servers_;
  std::weak_ptr<wire::Http2Session> session_;
  std::vector<std::string> names_;
  bool over_ = false;
  std::thread loop_;
};

TEST_F(PublishedPortsTest, BytesGoBothWaysAndAHalfCloseIsOne) {
  start();
  const auto port = publish(std::to_string(serve(serve_echo)));
  EXPECT_EQ(echo(port, "hello"), "hello");
  const std::string large(5'000'000, 'x');
  EXPECT_EQ(echo(port, large).size(), large.size());
}

TEST_F(PublishedPortsTest, AResetIsOneInBothDirections) {
  start();
  std::promise<std::string> seen;
  const auto port = publish(std::to_string(serve([&](std::shared_ptr<tcp::socket> socket) -> wire::Awaitable<void> {
    char byte = 0;
    for (;;) {
      const auto [error, size] = co_await socket->async_read_some(asio::buffer(&byte, 1), kToken);
      if (!error && byte == 'r') co_return wire::cut(*socket);
      if (error) co_return seen.set_value(error.message());
    }
  })));
  const auto client = dial(port);
  ASSERT_TRUE(write_all(client.get(), "r"));
  int error = 0;
  read_to_end(client.get(), error);
  EXPECT_EQ(error, ECONNRESET);

  auto other = dial(port);
  ASSERT_TRUE(write_all(other.get(), "c"));
  const linger now{1, 0};
  ::setsockopt(other.get(), SOL_SOCKET, SO_LINGER, &now, sizeof now);
  other.reset();
  auto end = seen.get_future();
  ASSERT_EQ(end.wait_for(60s), std::future_status::ready);
  EXPECT_EQ(end.get(), boost::system::error_code(asio::error::connection_reset).message());
}

TEST_F(PublishedPortsTest, ThousandsOfConnectionsLeaveNothing) {
  start();
  const auto port = publish(std::to_string(serve(serve_echo)));
  const auto closed = publish("1");  // nobody listens there
  ASSERT_EQ(echo(port, "x"), "x");
  EXPECT_TRUE(eventually([&] { return ports_->connections() == 0; }));
  const auto before = open_files();
  for (int i = 0; i < 2000; ++i) {
    if (i % 4 == 0) {
      EXPECT_EQ(echo(closed, "x"), "");
    } else {
      ASSERT_EQ(echo(port, "x"), "x") << i;
    }
  }
  std::vector<UniqueFd> sockets;
  for (int i = 0; i < 200; ++i) sockets.push_back(dial(port));
  for (const auto& socket : sockets) EXPECT_TRUE(write_all(socket.get(), "y"));
  for (const auto& socket : sockets) {
    char byte = 0;
    EXPECT_EQ(::recv(socket.get(), &byte, 1, 0), 1);
  }
  sockets.clear();
  EXPECT_TRUE(eventually([&] { return ports_->connections() == 0; }));
  EXPECT_TRUE(eventually([&] { return session_.lock()->open_streams() == 0; }));
  EXPECT_TRUE(eventually([&] { return open_files() <= before; })) << open_files() << " " << before;
}

TEST_F(PublishedPortsTest, MoreConnectionsThanTheLimitWaitForTheirTurn) {
  keeper::PublishedPorts::Limits limits;
  limits.connections = 2;
  start(guest::serve_forward, limits);
  const auto port = publish(std::to_string(serve(serve_echo)));
  auto first = dial(port);
  const auto second = dial(port);
  EXPECT_TRUE(eventually([&] { return ports_->connections() == 2; }));
  const auto third = dial(port);
  ASSERT_TRUE(third.valid());
  ASSERT_TRUE(write_all(third.get(), "z"));
  first.reset();
  char byte = 0;
  EXPECT_EQ(::recv(third.get(), &byte, 1, 0), 1);
}

TEST_F(PublishedPortsTest, APortThatIsWithdrawnIsFreeAndItsConnectionsEnd) {
  start();
  const auto port = publish(std::to_string(serve(serve_echo)));
  EXPECT_TRUE(order(keeper::Order::kAsk, names_[0]));
  const auto client = dial(port);
  ASSERT_TRUE(write_all(client.get(), "x"));
  char byte = 0;
  ASSERT_EQ(::recv(client.get(), &byte, 1, 0), 1);
  EXPECT_TRUE(order(keeper::Order::kWithdraw, names_[0]));
  int error = 0;
  read_to_end(client.get(), error);
  EXPECT_EQ(error, ECONNRESET);
  EXPECT_FALSE(dial(port).valid());
  EXPECT_EQ(order(keeper::Order::kAsk, names_[0]).error().code, ErrorCode::kNotFound);
  EXPECT_EQ(order(keeper::Order::kWithdraw, names_[0]).error().code, ErrorCode::kNotFound);
  EXPECT_TRUE(bind_spec(parse_port_spec(std::to_string(port) + ":80").value()));
}

TEST_F(PublishedPortsTest, EachClientOfUdpHasAFlowOfItsOwn) {
  start();
  const auto port = publish(std::to_string(serve_packets()) + "/udp");
  const auto first = dial(port, SOCK_DGRAM);
  const auto second = dial(port, SOCK_DGRAM);
  const auto one = packet(first, "one");
  const auto two = packet(second, "two");
  EXPECT_TRUE(one.ends_with(" one")) << one;
  EXPECT_TRUE(two.ends_with(" two")) << two;
  EXPECT_NE(one.substr(0, one.find(' ')), two.substr(0, two.find(' '))) << "the server cannot tell them apart";
  EXPECT_EQ(packet(first, "again"), one.substr(0, one.find(' ')) + " again");
  EXPECT_TRUE(packet(second, "").ends_with(" ")) << "an empty packet is one";
  EXPECT_EQ(packet(first, std::string(60'000, 'x')).size(), 60'000 + one.find(' ') + 1);
  EXPECT_EQ(now<std::size_t>([&] { return ports_->flows(); }), 2U);
  EXPECT_TRUE(order(keeper::Order::kWithdraw, names_[0]));
  EXPECT_EQ(now<std::size_t>([&] { return ports_->flows(); }), 0U);
  EXPECT_TRUE(eventually([&] { return session_.lock()->open_streams() == 0; }));
}

TEST_F(PublishedPortsTest, FlowsAreBoundedAndEndWhenNobodyUsesThem) {
  keeper::PublishedPorts::Limits limits;
  limits.flows = 4;
  limits.flow_idle = 2s;
  start(guest::serve_forward, limits);
  const auto port = publish(std::to_string(serve_packets()) + "/udp");
  const auto before = open_files();
  std::vector<UniqueFd> clients;
  for (int i = 0; i < 12; ++i) {
    clients.push_back(dial(port, SOCK_DGRAM));
    EXPECT_TRUE(packet(clients.back(), "x").ends_with(" x")) << i;
    EXPECT_LE(now<std::size_t>([&] { return ports_->flows(); }), 4U);
  }
  EXPECT_TRUE(eventually([&] { return ports_->flows() == 0; }));
  EXPECT_TRUE(eventually([&] { return session_.lock()->open_streams() == 0; }));
  EXPECT_TRUE(packet(clients.front(), "back").ends_with(" back")) << "a client that comes back gets a new flow";
  clients.clear();
  EXPECT_TRUE(eventually([&] { return ports_->flows() == 0 && open_files() <= before; }));
}

// Every stream is accepted; what happens then depends on the port that is asked for.
wire::Awaitable<void> hostile(Stream stream) {
  const auto path = stream->request().path;
  if (path.ends_with(":9") || path.ends_with("/9/")) co_return co_await stream->closed();  // never answers
  (void)stream->respond(200, {}, false);
  if (path.ends_with(":7") || path.ends_with("/7/")) co_return co_await stream->closed();  // never reads
  for (int i = 0; i < 64; ++i) {                                                           // floods with garbage
    if (!co_await stream->write(std::string(65536, '\x01'))) break;
    if (!co_await stream->write(std::string("\x00\xff\xff\xff\xff\xff\xff\xff\xff", 9))) break;
  }
  co_await stream->closed();
}

TEST_F(PublishedPortsTest, AHostileGuestHarmsItsOwnClientsOnly) {
  keeper::PublishedPorts::Limits limits;
  limits.answer_deadline = 3s;
  limits.flow_idle = 2s;
  start(
      [](Stream stream) {
        const bool well_known = stream->request().path.starts_with("127.0.0.1:") && stream->request().path.size() < 13;
        return well_known || !stream->request().protocol.empty() ? hostile(stream) : guest::serve_forward(stream);
      },
      limits);
  const auto good = publish(std::to_string(serve(serve_echo)));

  const auto mute = dial(publish("9"));
  int error = 0;
  read_to_end(mute.get(), error);
  EXPECT_EQ(error, ECONNRESET) << "no answer within the deadline";

  const auto unread = dial(publish("7"));
  const timeval patience{0, 200'000};
  ::setsockopt(unread.get(), SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
  const std::string block(1 << 20, 'x');
  std::size_t taken = 0;
  for (ssize_t n = 0; (n = ::send(unread.get(), block.data(), block.size(), MSG_NOSIGNAL)) > 0;)
    taken += static_cast<std::size_t>(n);
  EXPECT_LT(taken, std::size_t{64} << 20U) << "back-pressure ends where memory begins";

  for (const char* port : {"7/udp", "9/udp", "5/udp"}) {
    const auto client = dial(publish(port), SOCK_DGRAM);
    for (int i = 0; i < 500; ++i) (void)::send(client.get(), block.data(), 60'000, 0);
  }
  EXPECT_TRUE(eventually([&] { return ports_->flows() == 0; })) << "garbage and silence end a flow";
  EXPECT_EQ(echo(good, "still there"), "still there");
  EXPECT_TRUE(now<bool>([&] { return link_.connected(); }));
}

TEST_F(PublishedPortsTest, WhileSomethingIsPublishedTheMachineIsNotParked) {
  start();
  int paused = 0;
  keeper::Parking::Steps steps;
  steps.pause = [&]() -> wire::Awaitable<Result<void>> {
    ++paused;
    co_return Result<void>{};
  };
  steps.resume = []() -> wire::Awaitable<Result<void>> { co_return Result<void>{}; };
  steps.put_clock_right = steps.resume;
  steps.wait_until_quiet = steps.resume;
  publish("80");
  asio::co_spawn(io_, link_.parking().run(steps), asio::detached);
  ::poll(nullptr, 0, 3 * static_cast<int>(keeper::Parking::kParkAfter.count()) / 2);
  EXPECT_FALSE(now<bool>([&] { return link_.parking().parked(); }));
  EXPECT_TRUE(order(keeper::Order::kWithdraw, names_[0]));
  EXPECT_TRUE(eventually([&] { return link_.parking().parked(); }));
  now<bool>([&] {
    link_.parking().end();
    return true;
  });
}

}  // namespace
}  // namespace sbx::sandbox
