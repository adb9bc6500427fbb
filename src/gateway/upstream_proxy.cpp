#include "gateway/upstream_proxy.h"

#include <array>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/buffer.hpp>
#include <boost/asio/read.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>

#include "gateway/base64.h"
#include "gateway/deadline.h"

namespace sbx::gateway {

namespace asio = boost::asio;
using asio::ip::tcp;

namespace {

constexpr auto kToken = asio::as_tuple(asio::use_awaitable);
constexpr std::chrono::seconds kPatience{30};

std::unexpected<Error> refused(const std::string& why) {
  return fail(ErrorCode::kUnavailable, "the upstream proxy " + why);
}

Awaitable<Result<void>> send(tcp::socket& socket, std::string bytes) {
  const auto [error, n] = co_await asio::async_write(socket, asio::buffer(bytes), kToken);
  wipe(bytes);
  if (error) co_return refused("closed the connection");
  co_return Result<void>{};
}

Awaitable<Result<std::string>> receive(tcp::socket& socket, std::size_t size) {
  std::string bytes(size, '\0');
  const auto [error, n] = co_await asio::async_read(socket, asio::buffer(bytes), kToken);
  if (error) co_return refused("closed the connection");
  co_return bytes;
}

std::string authority(const policy::Target& target) {
  const bool v6 = target.host.find(':') != std::string::npos;
  return (v6 ? "[" + target.host + "]" : target.host) + ":" + std::to_string(target.port);
}

Awaitable<Result<void>> http_connect(tcp::socket& socket, const UpstreamProxy& proxy, const policy::Target& target) {
  std::string request = "CONNECT " + authority(target) + " HTTP/1.1\r\nHost: " + authority(target) + "\r\n";
  if (!proxy.user.empty()) {
    std::string login = proxy.user + ":" + std::string(proxy.password.view());
    request += "Proxy-Authorization: Basic " + base64_encode(login) + "\r\n";
    wipe(login);
  }
  SBX_CO_CHECK(co_await send(socket, request + "\r\n"), "asking the upstream proxy");
  wipe(request);
  // Byte by byte: what follows the head is the server's.
  std::string head;
  while (!head.ends_with("\r\n\r\n")) {
    if (head.size() > (16U << 10U)) co_return refused("answers with an endless head");
    SBX_CO_TRY(const auto byte, co_await receive(socket, 1), "reading the upstream proxy's answer");
    head += byte;
  }
  SBX_CO_TRY(const auto response, parse_response_head(head), "reading the upstream proxy's answer");
  if (response.status / 100 == 2) co_return Result<void>{};
  if (response.status == 407) co_return refused("wants other credentials (407); see `sbx settings`");
  co_return refused("refuses " + authority(target) + " with status " + std::to_string(response.status));
}

std::string socks_address(const policy::Target& target) {
  std::string bytes;
  if (const auto address = policy::parse_address(target.host); address && address->is_v4()) {
    bytes.push_back('\x01');
    for (const auto byte : address->to_v4().to_bytes()) bytes.push_back(static_cast<char>(byte));
  } else if (address) {
    bytes.push_back('\x04');
    for (const auto byte : address->to_v6().to_bytes()) bytes.push_back(static_cast<char>(byte));
  } else {
    bytes.push_back('\x03');
    bytes.push_back(static_cast<char>(target.host.size()));
    bytes += target.host;
  }
  bytes.push_back(static_cast<char>(target.port >> 8U));
  bytes.push_back(static_cast<char>(target.port));
  return bytes;
}

Awaitable<Result<void>> socks_login(tcp::socket& socket, const UpstreamProxy& proxy) {
  std::string login("\x01");
  login += static_cast<char>(proxy.user.size()) + proxy.user;
  login += static_cast<char>(proxy.password.view().size());
  login += proxy.password.view();
  SBX_CO_CHECK(co_await send(socket, std::move(login)), "logging in at the upstream proxy");
  SBX_CO_TRY(const auto answer, co_await receive(socket, 2), "logging in at the upstream proxy");
  if (answer[1] != 0) co_return refused("wants other credentials; see `sbx settings`");
  co_return Result<void>{};
}

Awaitable<Result<void>> socks_connect(tcp::socket& socket, const UpstreamProxy& proxy, const policy::Target& target) {
  const bool login = !proxy.user.empty();
  const std::string greeting = login ? std::string("\x05\x02\x00\x02", 4) : std::string("\x05\x01\x00", 3);
  SBX_CO_CHECK(co_await send(socket, greeting), "asking the upstream proxy");
  SBX_CO_TRY(const auto method, co_await receive(socket, 2), "asking the upstream proxy");
  if (method[0] != 5) co_return refused("does not speak SOCKS5");
  if (method[1] == 2 && login) {
    SBX_CO_CHECK(co_await socks_login(socket, proxy), "asking the upstream proxy");
  } else if (method[1] != 0) {
    co_return refused("wants credentials; see `sbx settings`");
  }
  SBX_CO_CHECK(co_await send(socket, std::string("\x05\x01\x00", 3) + socks_address(target)), "asking the proxy");
  SBX_CO_TRY(const auto head, co_await receive(socket, 4), "reading the upstream proxy's answer");
  if (head[0] != 5) co_return refused("does not speak SOCKS5");
  if (head[1] != 0) {
    co_return refused("refuses " + authority(target) + " with SOCKS5 reply " + std::to_string(int(head[1])));
  }
  std::size_t rest = head[3] == 1 ? 4 : head[3] == 4 ? 16 : 0;
  if (head[3] == 3) {
    SBX_CO_TRY(const auto size, co_await receive(socket, 1), "reading the upstream proxy's answer");
    rest = static_cast<unsigned char>(size[0]);
  } else if (rest == 0) {
    co_return refused("answers with an unknown kind of address");
  }
  SBX_CO_CHECK(co_await receive(socket, rest + 2), "reading the upstream proxy's answer");
  co_return Result<void>{};
}

}  // namespace

Awaitable<Result<void>> connect_through(tcp::socket& socket, const UpstreamProxy& proxy, const policy::Target& target) {
  Deadline deadline(socket.get_executor(), kPatience, [&socket] {
    boost::system::error_code ignored;
    socket.close(ignored);
  });
  Result<void> result;
  if (proxy.kind == UpstreamProxy::Kind::kSocks5) {
    result = co_await socks_connect(socket, proxy, target);
  } else {
    result = co_await http_connect(socket, proxy, target);
  }
  if (!result && !socket.is_open()) co_return fail(ErrorCode::kTimeout, "the upstream proxy did not answer in time");
  co_return result;
}

}  // namespace sbx::gateway
