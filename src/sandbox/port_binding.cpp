#include "sandbox/port_binding.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <sstream>

#include "base/file.h"

namespace sbx::sandbox {
namespace {

namespace fs = std::filesystem;

constexpr int kBacklog = 511;
constexpr int kAttempts = 20;  // to find a port that is free on both addresses

struct Address {
  sockaddr_storage storage{};
  socklen_t size = 0;
  sockaddr* get() { return reinterpret_cast<sockaddr*>(&storage); }
};

Address address_of(const store::PublishedPort& port) {
  Address address;
  const auto number = htons(static_cast<std::uint16_t>(port.host_port));
  auto& v4 = reinterpret_cast<sockaddr_in&>(address.storage);
  if (::inet_pton(AF_INET, port.host_ip.c_str(), &v4.sin_addr) == 1) {
    v4.sin_family = AF_INET;
    v4.sin_port = number;
    address.size = sizeof v4;
    return address;
  }
  auto& v6 = reinterpret_cast<sockaddr_in6&>(address.storage);
  ::inet_pton(AF_INET6, port.host_ip.c_str(), &v6.sin6_addr);
  v6.sin6_family = AF_INET6;
  v6.sin6_port = number;
  address.size = sizeof v6;
  return address;
}

// The inode of the socket that has the port, by proc_net(5): "sl local_address rem_address st ... inode".
std::string inode_of(const store::PublishedPort& port) {
  char hex[8];
  std::snprintf(hex, sizeof hex, ":%04X", static_cast<unsigned>(port.host_port));
  for (const char* family : {"", "6"}) {
    std::istringstream lines(read_file("/proc/net/" + port.protocol + family, 16U << 20U).value_or(""));
    for (std::string line; std::getline(lines, line);) {
      std::istringstream words(line);
      std::string number, local, remote, state, skip, inode;
      words >> number >> local >> remote >> state;
      for (int i = 0; i < 5; ++i) words >> skip;
      words >> inode;
      const bool listens = port.protocol == "udp" || state == "0A";
      if (listens && local.ends_with(hex)) return inode;
    }
  }
  return "";
}

// " (process 123, nginx)", as far as this user may see it.
std::string owner_of(const store::PublishedPort& port) {
  const auto inode = inode_of(port);
  if (inode.empty() || inode == "0") return "";
  std::error_code error;
  for (const auto& process : fs::directory_iterator("/proc", error)) {
    const std::string pid = process.path().filename();
    if (pid.find_first_not_of("0123456789") != std::string::npos) continue;
    for (fs::directory_iterator fd(process.path() / "fd", error), last; !error && fd != last; fd.increment(error)) {
      std::error_code gone;
      if (fs::read_symlink(fd->path(), gone) != "socket:[" + inode + "]") continue;
      auto name = read_file(process.path() / "comm", 64).value_or("");
      if (name.ends_with('\n')) name.pop_back();
      return " (process " + pid + (name.empty() ? "" : ", " + name) + ")";
    }
    error.clear();
  }
  return "";
}

Error bind_error(const store::PublishedPort& port, int error) {
  const std::string what = "publish port: port " + port.name();
  if (error == EADDRINUSE) {
    return Error{ErrorCode::kConflict,
                 what + " is in use on the host" + owner_of(port) + "; choose another, such as --publish " +
                     std::to_string(port.host_port == 65'535 ? 8080 : port.host_port + 1) + ":" +
                     std::to_string(port.sandbox_port) + ", or give the sandbox's port only and the host chooses",
                 {}};
  }
  if (error == EACCES || error == EPERM) {
    return Error{ErrorCode::kDenied, what + " may only be used by root; choose one from 1024 up", {}};
  }
  if (error == EADDRNOTAVAIL || error == EAFNOSUPPORT) {
    return Error{ErrorCode::kInvalid, what + ": the host has no address " + port.host_ip, {}};
  }
  return Error{ErrorCode::kInternal, what + ": " + std::strerror(error), {}};
}

// Fills in the port's number if it was 0.
Result<UniqueFd> bind_port(store::PublishedPort& port) {
  Address address = address_of(port);
  const bool tcp = port.protocol == "tcp";
  const int type = (tcp ? SOCK_STREAM : SOCK_DGRAM) | SOCK_CLOEXEC | SOCK_NONBLOCK;
  UniqueFd socket(::socket(address.storage.ss_family, type, 0));
  if (!socket.valid()) return std::unexpected(bind_error(port, errno));
  const int on = 1;
  if (address.storage.ss_family == AF_INET6) ::setsockopt(socket.get(), IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on);
  if (tcp) {
    // Not another listener beside this one, but connections of an earlier one that are still on their way out. What
    // follows is inherited by the connections, whose options their keeper must not set.
    ::setsockopt(socket.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    ::setsockopt(socket.get(), SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
    ::setsockopt(socket.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  }
  if (::bind(socket.get(), address.get(), address.size) != 0) return std::unexpected(bind_error(port, errno));
  if (tcp && ::listen(socket.get(), kBacklog) != 0) return std::unexpected(bind_error(port, errno));
  // After binding: the keeper's sockets for single clients fit in beside this one, another listener does not.
  if (!tcp) ::setsockopt(socket.get(), SOL_SOCKET, SO_REUSEPORT, &on, sizeof on);
  if (::getsockname(socket.get(), address.get(), &address.size) != 0) return fail_errno("getsockname", errno);
  port.host_port =
      ntohs(address.storage.ss_family == AF_INET ? reinterpret_cast<sockaddr_in&>(address.storage).sin_port
                                                 : reinterpret_cast<sockaddr_in6&>(address.storage).sin6_port);
  return socket;
}

Result<std::vector<BoundPort>> bind_once(const PortSpec& spec) {
  std::vector<BoundPort> bound;
  store::PublishedPort port;
  port.host_port = spec.host_port;
  port.sandbox_port = spec.sandbox_port;
  port.protocol = spec.protocol;
  port.ephemeral = spec.host_port == 0;
  for (const auto& ip : spec.host_ips) {
    port.host_ip = ip;
    auto socket = bind_port(port);
    if (!socket) {
      const bool no_such_address = socket.error().code == ErrorCode::kInvalid;
      if (spec.second_is_optional && !bound.empty() && no_such_address) break;
      return std::unexpected(std::move(socket.error()));
    }
    bound.push_back({port, std::move(*socket)});
  }
  return bound;
}

}  // namespace

Result<std::vector<BoundPort>> bind_spec(const PortSpec& spec) {
  auto bound = bind_once(spec);
  for (int i = 1; i < kAttempts && !bound && spec.host_port == 0 && bound.error().code == ErrorCode::kConflict; ++i)
    bound = bind_once(spec);
  return bound;
}

Result<BoundPort> bind_again(const store::PublishedPort& port) {
  BoundPort bound{port, UniqueFd()};
  auto socket = bind_port(bound.port);
  if (!socket && port.ephemeral && socket.error().code == ErrorCode::kConflict) {
    bound.port.host_port = 0;
    socket = bind_port(bound.port);
  }
  if (!socket) return std::unexpected(std::move(socket.error()));
  bound.socket = std::move(*socket);
  return bound;
}

}  // namespace sbx::sandbox
