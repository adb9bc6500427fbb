// GatewayLink: the daemon's connection to the gateway of one running sandbox (docs/development/protocols.md, "Gateway
// socket"). Tells each gateway that takes up the socket, also one that replaces another, what it must know, and passes
// on what it decided. What comes from there is untrusted: it is bounded and parsed as JSON, and no more.
//
// The one event loop. Held by shared_ptr; ends with stop(), or by itself when nobody listens on the socket any more.
#pragma once

#include <sys/socket.h>

#include <boost/asio/steady_timer.hpp>
#include <filesystem>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "base/unique_fd.h"
#include "sandbox/async.h"
#include "secret/login.h"
#include "wire/http2_session.h"

namespace sbx::sandbox {

class GatewayLink : public std::enable_shared_from_this<GatewayLink> {
 public:
  // A GatewayConfig as text; called for each gateway and after each refresh(). The text is wiped once it is sent.
  using Configuration = std::function<Awaitable<Result<std::string>>()>;
  using Record = std::function<Result<void>(const nlohmann::json& entry)>;
  // Tokens of a login in the sandbox. kNotFound: it is none that could be kept. Any other Error: it could not be kept
  // now. It stays the gateway's, and is given here again, until it is.
  using KeepLogin = std::function<Awaitable<Result<void>>(std::shared_ptr<const secret::LoginUpdate> login)>;

  GatewayLink(boost::asio::any_io_executor executor, std::filesystem::path socket, Configuration configuration,
              Record record, KeepLogin keep_login);

  void start();
  void stop();
  // The configuration has changed: the gateway is told anew. Waits until it has taken it, or for `patience`; an Error
  // tells why it has not (it will be told again when it is there).
  Awaitable<Result<void>> refresh(std::chrono::milliseconds patience);
  // For people: "starting", "configured", "gone" or "failed: ..."
  const std::string& state() const { return state_; }
  // For people: the login that only the gateway has, since it could not be kept, and why. Empty: none.
  const std::string& unkept_login() const { return unkept_login_; }

 private:
  Awaitable<void> run();
  Awaitable<Result<void>> push(std::shared_ptr<wire::Http2Session> session);
  Awaitable<void> read_log(std::shared_ptr<wire::Http2Session> session);
  Awaitable<void> read_logins(std::shared_ptr<wire::Http2Session> session);
  Awaitable<void> keep(std::shared_ptr<wire::Http2Session> session, std::shared_ptr<const secret::LoginUpdate> login);
  void tell_unkept(const std::string& what);
  Awaitable<void> renew();

  boost::asio::any_io_executor executor_;
  std::filesystem::path socket_;
  Configuration configuration_;
  Record record_;
  KeepLogin keep_login_;
  std::uint64_t logins_seen_ = 0;  // the newest change that is kept, of the gateway at the other end
  std::shared_ptr<wire::Http2Session> session_;
  std::shared_ptr<AsyncMutex> turn_;  // of telling: the last configuration told must be the newest
  boost::asio::steady_timer pause_;
  boost::asio::steady_timer renewal_;
  bool stopped_ = false;
  std::string state_ = "starting";
  std::string unkept_login_;
};

// Connects to a unix socket; non-blocking. kUnavailable if nobody answers there.
Result<UniqueFd> connect_to_socket(const std::filesystem::path& path, int type = SOCK_STREAM);

}  // namespace sbx::sandbox
