#include "keeper/port_table.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <map>

#include "base/file.h"
#include "vm/machine_process.h"

namespace sbx::keeper {
namespace {

constexpr timeval kPatience{2, 0};  // for a daemon that connects and says nothing
constexpr int kPacketsAtOnce = 64;  // before somebody else has a turn
constexpr std::size_t kLargestPacket = 65'527;

struct Packet {
  std::array<char, kLargestPacket> bytes;
  std::size_t size = 0;
  sockaddr_storage from{};
  socklen_t from_size = 0;
  sockaddr_storage to{};  // our address that the client knows
  socklen_t to_size = 0;
};

// Where a packet that came to a socket bound to every address was sent to.
void note_destination(const msghdr& header, Packet& packet) {
  for (auto* part = CMSG_FIRSTHDR(&header); part != nullptr; part = CMSG_NXTHDR(const_cast<msghdr*>(&header), part)) {
    if (part->cmsg_level == IPPROTO_IP && part->cmsg_type == IP_PKTINFO) {
      in_pktinfo info{};
      std::memcpy(&info, CMSG_DATA(part), sizeof info);
      reinterpret_cast<sockaddr_in&>(packet.to).sin_addr = info.ipi_addr;
    } else if (part->cmsg_level == IPPROTO_IPV6 && part->cmsg_type == IPV6_PKTINFO) {
      in6_pktinfo info{};
      std::memcpy(&info, CMSG_DATA(part), sizeof info);
      reinterpret_cast<sockaddr_in6&>(packet.to).sin6_addr = info.ipi6_addr;
    }
  }
}

bool receive(int socket, Packet& packet) {
  packet.to_size = sizeof packet.to;
  if (::getsockname(socket, reinterpret_cast<sockaddr*>(&packet.to), &packet.to_size) != 0) return false;
  iovec part{packet.bytes.data(), packet.bytes.size()};
  alignas(cmsghdr) std::array<char, 128> control{};
  msghdr header{};
  header.msg_name = &packet.from;
  header.msg_namelen = sizeof packet.from;
  header.msg_iov = &part;
  header.msg_iovlen = 1;
  header.msg_control = control.data();
  header.msg_controllen = control.size();
  const ssize_t size = ::recvmsg(socket, &header, MSG_DONTWAIT);
  if (size < 0) return false;
  packet.size = static_cast<std::size_t>(size);
  packet.from_size = header.msg_namelen;
  note_destination(header, packet);
  return true;
}

// A socket that sends to and hears from one client only. The listening one has SO_REUSEPORT for its sake (bind_port()
// in sbxd sets it after binding, so that no other listener fits in beside it).
UniqueFd flow_socket(const Packet& packet) {
  UniqueFd socket(::socket(packet.from.ss_family, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  const int on = 1;
  if (::setsockopt(socket.get(), SOL_SOCKET, SO_REUSEPORT, &on, sizeof on) != 0 ||
      ::bind(socket.get(), reinterpret_cast<const sockaddr*>(&packet.to), packet.to_size) != 0 ||
      ::connect(socket.get(), reinterpret_cast<const sockaddr*>(&packet.from), packet.from_size) != 0) {
    return UniqueFd();
  }
  return socket;
}

// The bytes as something that can be passed on.
UniqueFd pipe_with(const Packet& packet) {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC | O_NONBLOCK) != 0) return UniqueFd();
  UniqueFd read_end(ends[0]);
  const UniqueFd write_end(ends[1]);
  const auto written = ::write(write_end.get(), packet.bytes.data(), packet.size);
  return written == static_cast<ssize_t>(packet.size) ? std::move(read_end) : UniqueFd();
}

}  // namespace

Message message(Order order, std::string_view name, std::int32_t port, bool udp) {
  Message result;
  result.kind = static_cast<std::uint32_t>(order);
  result.value = port;
  result.more = udp ? 1 : 0;
  name.copy(result.text, sizeof result.text - 1);
  return result;
}

Result<void> PortTable::listen(const std::filesystem::path& runtime_folder) {
  listener_ = SBX_TRY(vm::listen_in(runtime_folder, kPortsSocket, SOCK_SEQPACKET), "listening for published ports");
  if (::fcntl(listener_.get(), F_SETFL, O_NONBLOCK) != 0) return fail_errno("fcntl", errno);
  return {};
}

void PortTable::close() {
  listener_.reset();
  for (const Port& port : ports_) ::shutdown(port.socket.get(), SHUT_RDWR);
  ports_.clear();
}

std::vector<int> PortTable::watched() const {
  std::vector<int> fds;
  if (listener_.valid()) fds.push_back(listener_.get());
  for (const Port& port : ports_) {
    if (port.udp) fds.push_back(port.socket.get());
  }
  return fds;
}

void PortTable::take(int fd) {
  if (fd == listener_.get()) return take_order();
  const auto port = std::ranges::find_if(ports_, [fd](const Port& p) { return p.udp && p.socket.get() == fd; });
  if (port != ports_.end()) take_packets(*port);
}

void PortTable::take_order() {
  const UniqueFd daemon(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
  if (!daemon.valid()) return;
  ::setsockopt(daemon.get(), SOL_SOCKET, SO_RCVTIMEO, &kPatience, sizeof kPatience);
  auto order = receive_message(daemon.get(), Descriptors::kAccepted);
  if (!order) return;
  (void)send_message(daemon.get(), answer(obey(std::move(*order))));  // a daemon that is gone asks again
}

Result<void> PortTable::obey(Received order) {
  const std::string name = text_of(order.message);
  switch (static_cast<Order>(order.message.kind)) {
    case Order::kPublish:
      return publish(std::move(order));
    case Order::kWithdraw:
      return withdraw(name);
    case Order::kAsk:
      if (std::ranges::find(ports_, name, &Port::name) != ports_.end()) return {};
      return fail(ErrorCode::kNotFound, "port " + name + " is not published");
  }
  return fail(ErrorCode::kInvalid, "no such order");
}

Result<void> PortTable::publish(Received order) {
  Port port;
  port.name = text_of(order.message);
  port.id = next_port_++;
  port.sandbox_port = order.message.value;
  port.udp = order.message.more == 1;
  port.socket = std::move(order.fd);
  if (!port.socket.valid()) return fail(ErrorCode::kInvalid, "the order came without a socket");
  if (std::ranges::find(ports_, port.name, &Port::name) != ports_.end()) {
    return fail(ErrorCode::kConflict, "port " + port.name + " is already published");
  }
  if (ports_.size() >= kMaxPorts) {
    return fail(ErrorCode::kConflict, "a sandbox has at most " + std::to_string(kMaxPorts) + " published ports");
  }
  if (port.udp) {
    const int on = 1;  // one of the two fits
    ::setsockopt(port.socket.get(), IPPROTO_IP, IP_PKTINFO, &on, sizeof on);
    ::setsockopt(port.socket.get(), IPPROTO_IPV6, IPV6_RECVPKTINFO, &on, sizeof on);
  }
  tell_(Event::kPublish, port.sandbox_port, port.id, port.udp ? -1 : port.socket.get());
  ports_.push_back(std::move(port));
  return {};
}

Result<void> PortTable::withdraw(const std::string& name) {
  const auto port = std::ranges::find(ports_, name, &Port::name);
  if (port == ports_.end()) return fail(ErrorCode::kNotFound, "port " + name + " is not published");
  // Whatever the worker does with its copy: nobody is let in any more.
  ::shutdown(port->socket.get(), SHUT_RDWR);
  tell_(Event::kWithdraw, 0, port->id, -1);
  ports_.erase(port);
  return {};
}

void PortTable::take_packets(const Port& port) {
  static Packet packet;
  std::map<std::string, std::int32_t> flows;  // clients of this turn: what they sent meanwhile is still queued here
  for (int i = 0; i < kPacketsAtOnce && receive(port.socket.get(), packet); ++i) {
    if (!has_room_()) continue;  // lost, as packets may be
    const std::string client(reinterpret_cast<const char*>(&packet.from), packet.from_size);
    auto [flow, is_new] = flows.try_emplace(client, next_flow_);
    if (is_new) {
      const auto socket = flow_socket(packet);
      if (!socket.valid()) {
        flows.erase(flow);
        continue;
      }
      ++next_flow_;
      tell_(Event::kFlow, port.id, flow->second, socket.get());
    }
    if (const auto bytes = pipe_with(packet); bytes.valid()) tell_(Event::kPacket, port.id, flow->second, bytes.get());
  }
}

}  // namespace sbx::keeper
