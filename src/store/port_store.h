// The published_ports table: what each sandbox publishes, whether it runs or not. Every call is one transaction.
// Thread safety: none; the daemon's event loop.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "store/database.h"

namespace sbx::store {

struct PublishedPort {
  std::string host_ip;
  std::int64_t host_port = 0;  // the one in use, or the last that was
  std::int64_t sandbox_port = 0;
  std::string protocol;    // tcp or udp
  bool ephemeral = false;  // nobody asked for this host_port: another will do
  bool operator==(const PublishedPort&) const = default;

  // "127.0.0.1:8080/tcp", "[::1]:8080/tcp": unique on the host.
  std::string name() const;
};

class PortStore {
 public:
  explicit PortStore(Database& database) : database_(database) {}

  // In the order of sandbox port, protocol, address.
  Result<std::vector<PublishedPort>> of(const std::string& sandbox_id);
  // Replaces what the sandbox publishes.
  Result<void> set(const std::string& sandbox_id, const std::vector<PublishedPort>& ports);
  // The ids of the sandboxes that publish this port of the host.
  Result<std::vector<std::string>> holders(const PublishedPort& port);

 private:
  Database& database_;
};

}  // namespace sbx::store
