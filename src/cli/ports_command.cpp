#include <iostream>

#include "cli/commands.h"
#include "cli/table.h"

namespace sbx::cli {

using nlohmann::json;

namespace {

std::string number(const json& port, const char* key) { return std::to_string(port.value(key, std::int64_t{0})); }

}  // namespace

std::string port_text(const json& port, const std::string& arrow, const std::string& suffix) {
  const std::string ip = port.value("host_ip", "");
  const std::string address = ip.find(':') == std::string::npos ? ip : "[" + ip + "]";
  return address + ":" + number(port, "host_port") + arrow + number(port, "sandbox_port") + "/" +
         port.value("protocol", "") + suffix;
}

Result<int> ports(const ApiClient& client, const PortsOptions& options) {
  const std::string target = sandbox_target(options.sandbox) + "/ports";
  const bool changes = !options.publish.empty() || !options.unpublish.empty();
  if (changes) {
    const json body = {{"publish", options.publish}, {"unpublish", options.unpublish}};
    const json done = SBX_TRY(client.call("POST", target, body, to_stderr(false)), "changing ports");
    if (!options.json) {
      for (const auto& port : done.value("unpublished", json::array()))
        std::cout << "Unpublished " << port_text(port, " -> ") << "\n";
      for (const auto& port : done.value("published", json::array()))
        std::cout << "Published " << port_text(port, " -> ") << "\n";
      return 0;
    }
  }
  const json answer = SBX_TRY(client.call("GET", target), "listing ports");
  const json list = answer.value("ports", json::array());
  if (options.json) {
    print_json(list);
    return 0;
  }
  if (list.empty()) {
    std::cout << "No published ports\n";
    return 0;
  }
  std::vector<std::vector<std::string>> table = {{"HOST IP", "HOST PORT", "SANDBOX PORT", "PROTOCOL"}};
  for (const auto& port : list) {
    table.push_back({port.value("host_ip", ""), number(port, "host_port"), number(port, "sandbox_port"),
                     port.value("protocol", "")});
  }
  std::cout << format_table(table);
  return 0;
}

}  // namespace sbx::cli
