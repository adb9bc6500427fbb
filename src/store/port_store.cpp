#include "store/port_store.h"

namespace sbx::store {

std::string PublishedPort::name() const {
  const bool v6 = host_ip.find(':') != std::string::npos;
  return (v6 ? "[" + host_ip + "]" : host_ip) + ":" + std::to_string(host_port) + "/" + protocol;
}

Result<std::vector<PublishedPort>> PortStore::of(const std::string& sandbox_id) {
  std::vector<PublishedPort> ports;
  const auto each = [&](const Row& row) {
    ports.push_back({row.text(0), row.integer(1), row.integer(2), row.text(3), row.integer(4) != 0});
  };
  SBX_CHECK(database_.run("SELECT host_ip, host_port, sandbox_port, protocol, ephemeral FROM published_ports "
                          "WHERE sandbox_id = ? ORDER BY sandbox_port, protocol, host_ip, host_port",
                          {sandbox_id}, each),
            "looking up published ports");
  return ports;
}

Result<void> PortStore::set(const std::string& sandbox_id, const std::vector<PublishedPort>& ports) {
  SBX_CHECK(database_.run("BEGIN IMMEDIATE"), "storing published ports");
  auto done = database_.run("DELETE FROM published_ports WHERE sandbox_id = ?", {sandbox_id});
  for (const auto& port : ports) {
    if (!done) break;
    done = database_.run("INSERT INTO published_ports VALUES(?,?,?,?,?,?)",
                         {sandbox_id, port.host_ip, port.host_port, port.sandbox_port, port.protocol,
                          std::int64_t{port.ephemeral ? 1 : 0}});
  }
  if (done) return database_.run("COMMIT");
  (void)database_.run("ROLLBACK");
  return done;
}

Result<std::vector<std::string>> PortStore::holders(const PublishedPort& port) {
  std::vector<std::string> ids;
  SBX_CHECK(
      database_.run("SELECT sandbox_id FROM published_ports WHERE host_ip = ? AND host_port = ? AND protocol = ?",
                    {port.host_ip, port.host_port, port.protocol}, [&](const Row& row) { ids.push_back(row.text(0)); }),
      "looking up published ports");
  return ids;
}

}  // namespace sbx::store
