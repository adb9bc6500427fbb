#include "sandbox/gateway_link.h"

#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <boost/asio/detached.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <cstring>

#include "sandbox/daemon_log.h"

namespace sbx::sandbox {
namespace asio = boost::asio;
using namespace std::chrono_literals;

namespace {

constexpr auto kFirstPause = 100ms;
constexpr auto kLongestPause = 5'000ms;
constexpr std::size_t kLongestLine = 16U << 10U;
constexpr std::size_t kLoginPiece = 4096;
constexpr auto kBetweenLogins = 1s;
// Until a login is given to a store again that would not take it.
constexpr auto kFirstKeepPause = 1'000ms;
constexpr auto kLongestKeepPause = 60'000ms;
constexpr std::size_t kLongestId = 48;             // of a LogEntry
constexpr auto kRenewal = std::chrono::hours(12);  // of the certificate in the configuration

Awaitable<void> run_session(std::shared_ptr<wire::Http2Session> session) { (void)co_await session->run(); }

wire::Http2Head put_config(std::uint64_t logins_seen) {
  wire::Http2Head head;
  head.method = "PUT";
  head.path = "/config";
  head.headers.emplace_back("sbx-logins-seen", std::to_string(logins_seen));
  return head;
}

wire::Http2Head get_logins() {
  wire::Http2Head head;
  head.method = "GET";
  head.path = "/logins";
  return head;
}

wire::Http2Head get_log() {
  wire::Http2Head head;
  head.method = "GET";
  head.path = "/log";
  return head;
}

}  // namespace

Result<UniqueFd> connect_to_socket(const std::filesystem::path& path, int type) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.native().size() >= sizeof address.sun_path)
    return fail(ErrorCode::kInternal, "socket path too long: " + path.native());
  std::memcpy(address.sun_path, path.c_str(), path.native().size());
  UniqueFd fd(::socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd.valid()) return fail_errno("making a socket", errno);
  if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    return fail(ErrorCode::kUnavailable, "nobody answers on " + path.native() + ": " + std::strerror(errno));
  }
  return fd;
}

GatewayLink::GatewayLink(asio::any_io_executor executor, std::filesystem::path socket, Configuration configuration,
                         Record record, KeepLogin keep_login)
    : executor_(executor),
      socket_(std::move(socket)),
      configuration_(std::move(configuration)),
      record_(std::move(record)),
      keep_login_(std::move(keep_login)),
      turn_(std::make_shared<AsyncMutex>(executor)),
      pause_(executor),
      renewal_(executor) {}

void GatewayLink::start() {
  auto self = shared_from_this();
  asio::co_spawn(
      executor_, [self]() -> Awaitable<void> { co_await self->run(); }, asio::detached);
  asio::co_spawn(
      executor_, [self]() -> Awaitable<void> { co_await self->renew(); }, asio::detached);
}

void GatewayLink::stop() {
  stopped_ = true;
  pause_.cancel();
  renewal_.cancel();
  if (session_) session_->close();
}

// The socket takes connections before the gateway does, and between two gateways: the next one finds ours waiting.
Awaitable<void> GatewayLink::run() {
  std::chrono::milliseconds pause = kFirstPause;
  while (!stopped_) {
    auto fd = connect_to_socket(socket_);
    if (fd) {
      session_ = wire::Http2Session::client(asio::posix::stream_descriptor(executor_, fd->release()));
      const auto session = session_;
      logins_seen_ = 0;
      unkept_login_.clear();  // the gateway at the other end tells what it has
      asio::co_spawn(executor_, run_session(session), asio::detached);
      const auto pushed = co_await push(session);
      if (pushed) {
        pause = kFirstPause;
        asio::co_spawn(
            executor_, [self = shared_from_this(), session]() -> Awaitable<void> { return self->read_logins(session); },
            asio::detached);
        co_await read_log(session);
      }
      session->close();
    }
    if (stopped_) break;
    if (state_ == "configured") state_ = "gone";
    boost::system::error_code ignored;
    pause_.expires_after(pause);
    co_await pause_.async_wait(asio::redirect_error(asio::use_awaitable, ignored));
    pause = std::min<std::chrono::milliseconds>(pause * 2, kLongestPause);
  }
  session_.reset();
}

Awaitable<Result<void>> GatewayLink::push(std::shared_ptr<wire::Http2Session> session) {
  const auto guard = co_await turn_->lock();
  const auto logins_seen = logins_seen_;  // before they are read: what is kept meanwhile may be missing
  auto config = co_await configuration_();
  if (!config) {
    state_ = "failed: " + config.error().describe();
    co_return std::unexpected(std::move(config.error()));
  }
  Result<void> sent;
  auto stream = session->open(put_config(logins_seen), false);
  if (!stream) sent = std::unexpected(stream.error());
  if (sent) sent = co_await (*stream)->write(*config);
  ::explicit_bzero(config->data(), config->size());  // it holds secrets
  if (sent) sent = co_await (*stream)->finish();
  if (sent) {
    const auto response = co_await (*stream)->response();
    const auto body = co_await wire::read_body(**stream, 64U << 10U);
    if (!response) {
      sent = std::unexpected(response.error());
    } else if (response->status != 200) {
      sent = fail(ErrorCode::kInvalid, "the gateway refuses its configuration: " + body.value_or(""));
    }
  }
  if (sent) {
    state_ = "configured";
  } else if (sent.error().code == ErrorCode::kInvalid) {
    state_ = "failed: " + sent.error().describe();
  }
  co_return sent;
}

Awaitable<void> GatewayLink::read_log(std::shared_ptr<wire::Http2Session> session) {
  auto stream = session->open(get_log(), true);
  if (!stream) co_return;
  std::vector<char> buffer(16U << 10U);
  std::string line, told;
  for (;;) {
    const auto size = co_await (*stream)->read_some(buffer);
    if (!size || *size == 0) co_return;
    for (const char c : std::string_view(buffer.data(), *size)) {
      if (c != '\n') {
        if (line.size() < kLongestLine) line += c;
        continue;
      }
      const auto entry = nlohmann::json::parse(line, nullptr, false);
      line.clear();
      if (!entry.is_object()) continue;
      // A signature is held back until its line is safe (src/gateway/ssh_agent.cpp), and refused if it never is.
      if (!record_(entry)) continue;
      const auto kind = entry.find("kind");
      const auto id = entry.find("id");
      if (kind != entry.end() && *kind == "ssh-agent" && id != entry.end() && id->is_string())
        told = id->get<std::string>().substr(0, kLongestId);
    }
    if (told.empty()) continue;
    auto id = std::exchange(told, {});
    (void)co_await wire::call(*session, "PUT", "/log/told", std::move(id), 4096);
  }
}

Awaitable<void> GatewayLink::read_logins(std::shared_ptr<wire::Http2Session> session) {
  const auto self = shared_from_this();
  auto stream = session->open(get_logins(), true);
  if (!stream) co_return;
  secret::LoginFrames frames;
  asio::steady_timer pause(executor_);
  while (!stopped_ && session == session_) {
    auto update = frames.next();
    if (!update) co_return;
    if (!*update) {
      const auto room = frames.prepare(kLoginPiece);
      if (!room) co_return;
      const auto size = co_await (*stream)->read_some(*room);
      if (!size || *size == 0) co_return;
      frames.commit(*size);
      continue;
    }
    auto login = std::make_shared<const secret::LoginUpdate>(std::move(**update));
    co_await keep(session, std::move(login));
    // Each is written to the store: a gateway must not keep that busy.
    boost::system::error_code ignored;
    pause.expires_after(kBetweenLogins);
    co_await pause.async_wait(asio::redirect_error(asio::use_awaitable, ignored));
  }
}

// The next is not read before this one is kept: what the gateway is told to be kept, all of it is.
Awaitable<void> GatewayLink::keep(std::shared_ptr<wire::Http2Session> session,
                                  std::shared_ptr<const secret::LoginUpdate> login) {
  asio::steady_timer pause(executor_);
  for (auto again = kFirstKeepPause; !stopped_ && session == session_;
       again = std::min<std::chrono::milliseconds>(again * 2, kLongestKeepPause)) {
    const auto kept = co_await keep_login_(login);
    if (session != session_) co_return;
    if (kept || kept.error().code == ErrorCode::kNotFound) {
      tell_unkept("");
      if (kept) logins_seen_ = std::max(logins_seen_, login->number);
      co_return;
    }
    tell_unkept(login->service + ": " + kept.error().describe());
    boost::system::error_code ignored;
    pause.expires_after(again);
    co_await pause.async_wait(asio::redirect_error(asio::use_awaitable, ignored));
  }
}

void GatewayLink::tell_unkept(const std::string& what) {
  if (what == unkept_login_) return;
  unkept_login_ = what;
  if (!what.empty()) {
    log_line({{"message", "a login is in its gateway only, since it cannot be stored"},
              {"gateway", socket_.native()},
              {"error", what}});
  }
}

Awaitable<void> GatewayLink::renew() {
  for (;;) {
    boost::system::error_code error;
    renewal_.expires_after(kRenewal);
    co_await renewal_.async_wait(asio::redirect_error(asio::use_awaitable, error));
    if (stopped_) co_return;
    (void)co_await refresh(60s);
  }
}

Awaitable<Result<void>> GatewayLink::refresh(std::chrono::milliseconds patience) {
  const auto session = session_;
  if (!session || !session->alive()) co_return fail(ErrorCode::kUnavailable, "the gateway is not there");
  // Goes on when nobody waits for it any more: a slow gateway must not live on with what was taken from it.
  struct Telling {
    asio::steady_timer patience;
    std::optional<Result<void>> taken;
  };
  const auto telling = std::make_shared<Telling>(asio::steady_timer(executor_, patience));
  const auto tell = [](std::shared_ptr<GatewayLink> self, std::shared_ptr<wire::Http2Session> to,
                       std::shared_ptr<Telling> result) -> Awaitable<void> {
    result->taken = co_await self->push(std::move(to));
    result->patience.cancel();
  };
  asio::co_spawn(executor_, tell(shared_from_this(), session, telling), asio::detached);
  boost::system::error_code ignored;
  if (!telling->taken) co_await telling->patience.async_wait(asio::redirect_error(asio::use_awaitable, ignored));
  if (!telling->taken) co_return fail(ErrorCode::kTimeout, "the gateway did not take its configuration in time");
  co_return std::move(*telling->taken);
}

}  // namespace sbx::sandbox
