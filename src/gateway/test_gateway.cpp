#include "gateway/test_gateway.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>
#include <csignal>

#include "wire/resync.h"

namespace sbx::gateway::test {

namespace asio = boost::asio;
using asio::ip::tcp;
using nlohmann::json;
using wire::Awaitable;

namespace {

constexpr auto kToken = asio::as_tuple(asio::use_awaitable);

UniqueFd listen_at(const std::filesystem::path& path) {
  UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  path.string().copy(address.sun_path, sizeof(address.sun_path) - 1);
  EXPECT_EQ(::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)), 0);
  EXPECT_EQ(::listen(fd.get(), 8), 0);
  return fd;
}

UniqueFd connect_to(const std::filesystem::path& path) {
  UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  path.string().copy(address.sun_path, sizeof(address.sun_path) - 1);
  EXPECT_EQ(::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)), 0);
  return fd;
}

// A client's connection, through a CONNECT, as sbx-guest does it.
Awaitable<void> relay(std::shared_ptr<wire::Http2Session> session, std::shared_ptr<tcp::socket> client,
                      std::string authority) {
  wire::Http2Head head;
  head.method = "CONNECT";
  head.path = std::move(authority);
  auto opened = session->open(std::move(head), false);
  if (!opened) co_return;
  auto stream = *opened;
  const auto response = co_await stream->response();
  if (!response || response->status / 100 != 2) {
    boost::system::error_code ignored;
    client->set_option(asio::socket_base::linger(true, 0), ignored);
    client->close(ignored);
    stream->reset();
    co_return;
  }
  asio::co_spawn(
      client->get_executor(),
      [stream, client]() -> Awaitable<void> {
        std::vector<char> buffer(65536);
        for (;;) {
          const auto [error, n] = co_await client->async_read_some(asio::buffer(buffer), kToken);
          if (error == asio::error::eof) break;
          if (error) co_return stream->reset();
          if (!co_await stream->write({buffer.data(), n})) co_return;
        }
        (void)co_await stream->finish();
      },
      asio::detached);
  boost::system::error_code ignored;
  for (;;) {
    const auto chunk = co_await stream->read_chunk();
    if (!chunk) {
      client->set_option(asio::socket_base::linger(true, 0), ignored);
      break;
    }
    if (chunk->empty()) {
      client->shutdown(tcp::socket::shutdown_send, ignored);
      co_await stream->closed();
      break;
    }
    const auto [error, n] = co_await asio::async_write(*client, asio::buffer(*chunk), kToken);
    if (error) {
      stream->reset();
      break;
    }
  }
  client->close(ignored);
}

Awaitable<void> accept_for(std::shared_ptr<wire::Http2Session> session, std::shared_ptr<tcp::acceptor> acceptor,
                           std::string authority) {
  for (;;) {
    auto [error, socket] = co_await acceptor->async_accept(kToken);
    if (error || !session->alive()) co_return;
    auto client = std::make_shared<tcp::socket>(std::move(socket));
    asio::co_spawn(acceptor->get_executor(), relay(session, std::move(client), authority), asio::detached);
  }
}

}  // namespace

json rule(const std::string& decision, const std::vector<std::string>& resources,
          const std::vector<std::string>& methods, const std::vector<std::string>& paths) {
  static int number = 0;
  json result;
  result["id"] = "r" + std::to_string(++number);
  result["name"] = decision + "-" + std::to_string(number);
  result["policy"] = "test";
  result["origin"] = "local";
  result["decision"] = decision;
  result["resources"] = resources;
  result["protocols"] = {"tcp"};
  result["methods"] = methods;
  result["paths"] = paths;
  return result;
}

TestGateway::TestGateway(std::vector<json> rules, const std::string& trusted, json more, Port kind, int agent_fd,
                         const std::vector<std::string>& options)
    : folder_(TemporaryFolder::make("sbx-gateway-test").value()),
      root_(make_root("sbx test sandboxes").value()),
      intermediate_(make_intermediate(root_, "a gateway under test", std::chrono::hours(1)).value()),
      work_(io_.get_executor()) {
  EXPECT_TRUE(write_file_atomically(root_file(), root_.certificate));
  EXPECT_TRUE(write_file_atomically(folder_.path() / "trusted.pem", trusted));
  int ports[2];
  EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ports), 0);
  const UniqueFd theirs(ports[0]);
  const auto listening = listen_at(folder_.path() / "control");
  std::vector<std::string> argv = {SBX_GATEWAY_PROGRAM,
                                   "--port-fd",
                                   std::to_string(theirs.get()),
                                   "--control-fd",
                                   std::to_string(listening.get()),
                                   "--ca-bundle",
                                   (folder_.path() / "trusted.pem").string()};
  if (agent_fd >= 0) argv.insert(argv.end(), {"--agent-fd", std::to_string(agent_fd)});
  argv.insert(argv.end(), options.begin(), options.end());
  Command command(std::move(argv));
  if (agent_fd >= 0) command.keep_fd(agent_fd);
  auto started = command.keep_fd(theirs.get()).keep_fd(listening.get()).die_with_parent().start();
  EXPECT_TRUE(started) << started.error().describe();
  process_ = std::move(*started);
  control_ =
      wire::Http2Session::client(asio::posix::stream_descriptor(io_, connect_to(folder_.path() / "control").release()));
  auto port = std::make_shared<asio::posix::stream_descriptor>(io_, ports[1]);
  thread_ = std::thread([this] { io_.run(); });
  asio::co_spawn(
      io_, [c = control_]() -> Awaitable<void> { (void)co_await c->run(); }, asio::detached);
  const auto resync = [&]() -> Awaitable<bool> {
    const auto done = co_await wire::resync_as_guest(*port);
    if (!done) co_return false;
    if (kind == Port::kRaw) {
      raw_port_.reset(port->release());
      ::fcntl(raw_port_.get(), F_SETFL, ::fcntl(raw_port_.get(), F_GETFL) & ~O_NONBLOCK);
      co_return true;
    }
    wire::Http2Limits limits;
    limits.max_concurrent_streams = 200'000;
    port_ = wire::Http2Session::client(std::move(*port), limits);
    co_return true;
  };
  EXPECT_TRUE(run(resync()));
  if (port_)
    asio::co_spawn(
        io_, [p = port_]() -> Awaitable<void> { (void)co_await p->run(); }, asio::detached);
  const auto configured = configure(std::move(rules), std::move(more));
  EXPECT_TRUE(configured) << configured.error().describe();
}

TestGateway::~TestGateway() {
  asio::post(io_, [this] {
    if (port_) port_->close();
    control_->close();
  });
  if (!process_.running()) {
    stop();
    return;
  }
  process_.kill(SIGKILL);
  const auto end = process_.wait();
  // A port that closes over unread bytes ends it too, with an error; a crash is a signal.
  EXPECT_TRUE(end && (end->signal == 0 || end->signal == SIGKILL))
      << "the gateway ended by itself: " << (end ? end->describe() : "");
  stop();
}

void TestGateway::stop() {
  work_.reset();
  io_.stop();
  thread_.join();
}

bool TestGateway::running() const {
  pollfd ended{process_.pidfd(), POLLIN, 0};
  return ::poll(&ended, 1, 0) == 0;
}

ExitStatus TestGateway::wait_for_end() {
  pollfd ended{process_.pidfd(), POLLIN, 0};
  EXPECT_EQ(::poll(&ended, 1, 60'000), 1) << "the gateway goes on";
  auto status = process_.wait();
  EXPECT_TRUE(status);
  return status.value_or(ExitStatus{});
}

json TestGateway::document(std::vector<json> rules, json more) const {
  json config = std::move(more);
  config["sandbox_id"] = "00000000-0000-0000-0000-000000000000";
  config["name"] = "test";
  config["policy"]["rules"] = std::move(rules);
  config["authority"] = {
      {"certificate", intermediate_.certificate}, {"key", intermediate_.key}, {"root", root_.certificate}};
  return config;
}

Result<std::string> TestGateway::configure(std::vector<json> rules, json more, std::uint64_t logins_seen) {
  const auto text = document(std::move(rules), std::move(more)).dump();
  const auto put = [&]() -> Awaitable<Result<std::string>> {
    wire::Http2Head head;
    head.method = "PUT";
    head.path = "/config";
    head.headers.emplace_back("sbx-logins-seen", std::to_string(logins_seen));
    SBX_CO_TRY(const auto stream, control_->open(std::move(head), false), "configuring");
    SBX_CO_CHECK(co_await stream->write(text), "configuring");
    SBX_CO_CHECK(co_await stream->finish(), "configuring");
    SBX_CO_TRY(const auto response, co_await stream->response(), "configuring");
    SBX_CO_TRY(auto body, co_await wire::read_body(*stream, 65536), "configuring");
    if (response.status != 200) co_return fail(ErrorCode::kInvalid, body);
    co_return body;
  };
  return run(put());
}

std::string TestGateway::logins(std::size_t size) {
  const auto read = [&]() -> Awaitable<std::string> {
    wire::Http2Head head;
    head.method = "GET";
    head.path = "/logins";
    std::string text;
    auto stream = control_->open(std::move(head), true);
    while (stream && text.size() < size) {
      const auto chunk = co_await (*stream)->read_chunk();
      if (!chunk || chunk->empty()) break;
      text += *chunk;
    }
    if (stream) (*stream)->reset();
    co_return text;
  };
  return run(read());
}

std::uint16_t TestGateway::leads_to(const std::string& authority) {
  auto acceptor = std::make_shared<tcp::acceptor>(io_, tcp::endpoint(asio::ip::address_v4::loopback(), 0));
  const auto port = acceptor->local_endpoint().port();
  asio::co_spawn(io_, accept_for(port_, std::move(acceptor), authority), asio::detached);
  return port;
}

Result<std::string> TestGateway::told(const std::string& id) {
  return run(wire::call(*control_, "PUT", "/log/told", id));
}

json TestGateway::status() {
  auto status = status_if_alive();
  EXPECT_TRUE(status.is_object());
  return status;
}

json TestGateway::status_if_alive() {
  const auto text = run(wire::call(*control_, "GET", "/status", ""));
  return json::parse(text.value_or("null"));
}

std::vector<json> TestGateway::log(std::size_t at_least) {
  const auto read = [&]() -> Awaitable<std::vector<json>> {
    wire::Http2Head head;
    head.method = "GET";
    head.path = "/log";
    std::vector<json> entries;
    auto stream = control_->open(std::move(head), true);
    if (!stream) co_return entries;
    std::string text;
    while (entries.size() < at_least) {
      const auto chunk = co_await (*stream)->read_chunk();
      if (!chunk || chunk->empty()) break;
      text += *chunk;
      for (auto end = text.find('\n'); end != std::string::npos; end = text.find('\n')) {
        entries.push_back(json::parse(text.substr(0, end)));
        text.erase(0, end + 1);
      }
    }
    (*stream)->reset();
    co_return entries;
  };
  return run(read());
}

int TestGateway::follow_for_a_moment() {
  const auto session =
      wire::Http2Session::client(asio::posix::stream_descriptor(io_, connect_to(folder_.path() / "control").release()));
  asio::co_spawn(
      io_, [session]() -> Awaitable<void> { (void)co_await session->run(); }, asio::detached);
  const auto follow = [&]() -> Awaitable<bool> {
    bool answered = true;
    for (const std::string path : {"/log", "/logins"}) {
      wire::Http2Head head;
      head.method = "GET";
      head.path = path;
      auto stream = session->open(std::move(head), true);
      if (!stream) co_return false;
      const auto response = co_await (*stream)->response();
      answered = answered && response && response->status == 200;
    }
    co_return answered;
  };
  EXPECT_TRUE(run(follow()));
  const int followers = status().value("followers", -1);
  asio::post(io_, [session] { session->close(); });
  return followers;
}

std::string TestGateway::dns(const std::string& query) { return dns(std::vector<std::string>{query}).front(); }

std::vector<std::string> TestGateway::dns(const std::vector<std::string>& queries) {
  const auto ask = [&]() -> Awaitable<std::vector<std::string>> {
    std::vector<std::shared_ptr<wire::Http2Stream>> streams;
    for (const auto& query : queries) {
      wire::Http2Head head;
      head.method = "POST";
      head.path = "/dns-query";
      head.headers.emplace_back("content-type", "application/dns-message");
      auto stream = port_->open(std::move(head), false);
      EXPECT_TRUE(stream);
      if (!stream) continue;
      (void)co_await (*stream)->write(query);
      (void)co_await (*stream)->finish();
      streams.push_back(*stream);
    }
    std::vector<std::string> answers;
    for (const auto& stream : streams) {
      const auto body = co_await wire::read_body(*stream, 65536);
      answers.push_back(body.value_or(""));
    }
    co_return answers;
  };
  return run(ask());
}

}  // namespace sbx::gateway::test
