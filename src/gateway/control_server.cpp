#include "gateway/control_server.h"

#include <algorithm>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <charconv>
#include <functional>
#include <nlohmann/json.hpp>

#include "gateway/login_tokens.h"

namespace sbx::gateway {

namespace asio = boost::asio;
using StreamPtr = std::shared_ptr<wire::Http2Stream>;

namespace {

constexpr auto kToken = asio::as_tuple(asio::use_awaitable);
constexpr std::size_t kMaxConfig = 16U << 20U;
constexpr std::string_view kLoginsSeen = "sbx-logins-seen";

// One answer that goes on for as long as its stream does. The stream's end wakes what waits for something to tell: else
// a gateway that has nothing to tell would keep one for every session that it has lost.
class Follower {
 public:
  Follower(Gateway& gateway, StreamPtr stream, std::size_t& count, std::function<void()> wake) : count_(count) {
    ++count_;
    asio::co_spawn(gateway.executor(), watch(std::move(stream), ended_, std::move(wake)), asio::detached);
  }
  ~Follower() { --count_; }
  Follower(const Follower&) = delete;
  Follower& operator=(const Follower&) = delete;
  const bool& ended() const { return *ended_; }

 private:
  static Awaitable<void> watch(StreamPtr stream, std::shared_ptr<bool> ended, std::function<void()> wake) {
    co_await stream->closed();
    *ended = true;
    wake();
  }

  std::size_t& count_;
  std::shared_ptr<bool> ended_ = std::make_shared<bool>(false);
};

struct Control {
  Gateway& gateway;
  ControlFacts facts;
  std::size_t followers = 0;
};
using ControlPtr = std::shared_ptr<Control>;

Awaitable<void> put_config(Gateway& gateway, StreamPtr stream) {
  auto body = co_await wire::read_body(*stream, kMaxConfig);
  if (!body) co_return co_await wire::send_error(*stream, body.error());
  auto config = GatewayConfig::parse(std::move(*body));
  if (!config) co_return co_await wire::send_error(*stream, config.error());
  const auto& headers = stream->request().headers;
  const auto seen = std::ranges::find(headers, kLoginsSeen, &std::pair<std::string, std::string>::first);
  std::uint64_t number = 0;
  if (seen != headers.end()) std::from_chars(seen->second.data(), seen->second.data() + seen->second.size(), number);
  gateway.configure(std::move(*config), number);
  co_await wire::send_json(*stream, 200, "{}");
}

Awaitable<void> get_log(ControlPtr control, StreamPtr stream) {
  auto& log = control->gateway.log();
  wire::HeaderList headers;
  headers.emplace_back("content-type", "application/x-ndjson");
  if (!stream->respond(200, std::move(headers), false)) co_return;
  const Follower follower(control->gateway, stream, control->followers, [&log] { log.wake(); });
  std::uint64_t next = 0;
  for (;;) {
    const auto lines = co_await log.read(next, follower.ended());
    if (lines.empty() || !co_await stream->write(lines)) co_return;
  }
}

Awaitable<void> get_logins(ControlPtr control, StreamPtr stream) {
  auto& gateway = control->gateway;
  if (!stream->respond(200, wire::HeaderList(), false)) co_return;
  const Follower follower(gateway, stream, control->followers, [&gateway] { gateway.wake_login_followers(); });
  std::uint64_t seen = 0;
  while (!follower.ended()) {
    const auto logins = co_await gateway.changed_logins(seen, follower.ended());
    for (const auto& login : logins) {
      auto update = login_update(*login);
      const auto written = co_await stream->write(update);
      wipe(update);
      if (!written) co_return;
    }
  }
}

Awaitable<void> put_told(Gateway& gateway, StreamPtr stream) {
  const auto id = co_await wire::read_body(*stream, 64);
  if (!id) co_return co_await wire::send_error(*stream, id.error());
  const auto told = gateway.log().told(*id);
  if (!told) co_return co_await wire::send_error(*stream, told.error());
  co_await wire::send_json(*stream, 200, "{}");
}

Awaitable<void> get_status(ControlPtr control, StreamPtr stream) {
  nlohmann::json status;
  status["configured"] = control->gateway.config() != nullptr;
  status["connections"] = control->gateway.open_count();
  status["secrets_locked"] = control->facts.secrets_locked;
  status["followers"] = control->followers;
  co_await wire::send_json(*stream, 200, status.dump());
}

Awaitable<void> handle(ControlPtr control, StreamPtr stream) {
  auto& gateway = control->gateway;
  const auto& request = stream->request();
  if (request.method == "PUT" && request.path == "/config") co_return co_await put_config(gateway, std::move(stream));
  if (request.method == "GET" && request.path == "/log") co_return co_await get_log(control, std::move(stream));
  if (request.method == "PUT" && request.path == "/log/told") co_return co_await put_told(gateway, std::move(stream));
  if (request.method == "GET" && request.path == "/logins") co_return co_await get_logins(control, std::move(stream));
  if (request.method == "GET" && request.path == "/status") co_return co_await get_status(control, std::move(stream));
  const Error error{ErrorCode::kNotFound, "there is no " + request.method + " " + request.path, {}};
  co_await wire::send_error(*stream, error);
}

}  // namespace

Awaitable<void> serve_control(Gateway& gateway, asio::local::stream_protocol::acceptor acceptor, ControlFacts facts) {
  // Kept by the handlers too: streams end after the session that they are of.
  const auto control = std::make_shared<Control>(Control{gateway, facts});
  for (;;) {
    auto [error, socket] = co_await acceptor.async_accept(kToken);
    if (error) co_return;
    auto session = wire::Http2Session::server(
        asio::posix::stream_descriptor(gateway.executor(), socket.release()),
        [control](StreamPtr stream) -> Awaitable<void> { return handle(control, std::move(stream)); });
    asio::co_spawn(
        gateway.executor(), [session]() -> Awaitable<void> { (void)co_await session->run(); }, asio::detached);
  }
}

}  // namespace sbx::gateway
