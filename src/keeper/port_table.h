// PortTable: the published ports of a running sandbox, as its supervisor holds them (docs/development/protocols.md,
// "Published ports"). Sockets that listen are made by sbxd and come over RUNTIME/ports.sock, one order a connection.
//
// What the worker gets is what it cannot misuse: of TCP the listening socket, to accept from; of UDP no socket but one
// for each client, connected to that client. Packets of clients that are new are read here, as bytes of no meaning, and
// passed on with the new socket. One thread, and nothing blocks for long.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <list>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"
#include "keeper/supervision.h"

namespace sbx::keeper {

// What sbxd asks for. `text` of the message names the port, "127.0.0.1:8080/tcp"; each is answered with kAnswer.
enum class Order : std::uint32_t {
  kPublish = 201,  // `value`: the port in the sandbox, `more`: 0 TCP, 1 UDP; with the socket. kConflict: there is one
  kWithdraw,       // open connections end. kNotFound
  kAsk,            // kNotFound, or it is published
};
Message message(Order order, std::string_view name, std::int32_t port = 0, bool udp = false);

inline constexpr const char* kPortsSocket = "ports.sock";
inline constexpr std::size_t kMaxPorts = 100;

class PortTable {
 public:
  // To the worker; a message that is lost is not repeated.
  using Tell = std::function<void(Event event, std::int32_t value, std::int32_t more, int fd)>;
  // Whether the worker keeps up with what it is told.
  using HasRoom = std::function<bool()>;

  PortTable(Tell tell, HasRoom has_room) : tell_(std::move(tell)), has_room_(std::move(has_room)) {}

  Result<void> listen(const std::filesystem::path& runtime_folder);
  // All ports are closed, and none is taken any more.
  void close();
  // The descriptors to poll for reading; take() is to be called with each one that is readable.
  std::vector<int> watched() const;
  void take(int fd);

 private:
  struct Port {
    std::string name;
    std::int32_t id = 0;
    std::int32_t sandbox_port = 0;
    bool udp = false;
    UniqueFd socket;
  };
  void take_order();
  Result<void> obey(Received order);
  Result<void> publish(Received order);
  Result<void> withdraw(const std::string& name);
  void take_packets(const Port& port);

  Tell tell_;
  HasRoom has_room_;
  UniqueFd listener_;
  std::list<Port> ports_;
  std::int32_t next_port_ = 1;
  std::int32_t next_flow_ = 1;
};

}  // namespace sbx::keeper
