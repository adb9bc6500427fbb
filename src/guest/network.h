// Network: the guest's way out. The VM has no network card; what leaves it, leaves as streams on the network port.
//
//   sbx0         a dummy interface with the default route: packets for the world go there, and never arrive
//   nftables     TCP that would leave through sbx0 is redirected to Redirect, from processes (output) and containers
//                (prerouting) alike; everything else that would leave there is refused at once. What stays inside
//                (containers among themselves, published ports, localhost) is not touched.
//   Resolver     on sbx0's address: Docker gives containers this one, where it would replace a loopback address
//
// None of this is what keeps the agent in (root may change it all): the gateway at the other end of the port is.
// Thread safety: none; the event loop only.
#pragma once

#include <memory>
#include <string>

#include "guest/gateway_port.h"
#include "guest/name_map.h"
#include "guest/reaper.h"
#include "guest/redirect.h"
#include "guest/resolver.h"

namespace sbx::guest {

class Network {
 public:
  Network(boost::asio::any_io_executor executor, Reaper& reaper);

  // Makes interface, rules, resolver and redirect, before anything that could use them runs. Needs /etc/sbx-modules
  // loaded. What fails is said on the console: a sandbox without network is better than none.
  Awaitable<void> set_up();
  // The network port. Runs for ever.
  Awaitable<void> serve() { return gateway_.run(); }
  GatewayPort& gateway() { return gateway_; }
  std::size_t connections() const { return redirect_.connections(); }

 private:
  Awaitable<Result<void>> run_tool(std::vector<std::string> argv, std::string input);

  boost::asio::any_io_executor executor_;
  Reaper& reaper_;
  NameMap names_;
  GatewayPort gateway_;
  Resolver resolver_;
  Redirect redirect_;
};

// The inputs of ip(8) -batch and nft(8) -f. Exposed for tests.
std::string interface_commands();
std::string netfilter_rules();

}  // namespace sbx::guest
