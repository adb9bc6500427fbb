// Published ports: stored, bound by the daemon, served by the sandbox's keeper.
#include <algorithm>

#include "sandbox/lifecycle.h"
#include "sandbox/port_orders.h"

namespace sbx::sandbox {

using keeper::Order;
using store::PublishedPort;

namespace {

std::vector<PublishedPort> without(const std::vector<PublishedPort>& ports, const std::vector<PublishedPort>& gone) {
  std::vector<PublishedPort> left;
  for (const auto& port : ports) {
    if (std::ranges::find(gone, port) == gone.end()) left.push_back(port);
  }
  return left;
}

}  // namespace

Result<std::vector<Lifecycle::PortView>> Lifecycle::ports(const std::string& name) {
  const auto row = SBX_TRY(require(name), "listing ports");
  std::vector<PortView> views;
  const auto live = live_.find(row.id);
  for (auto& port : SBX_TRY(port_store_.of(row.id), "listing ports")) {
    const bool listening = live != live_.end() && live->second->ports.contains(port.name());
    views.push_back({std::move(port), listening});
  }
  return views;
}

// Also those that are somebody else's: who has a port can be said better by name than by process.
Result<std::vector<BoundPort>> Lifecycle::bind_ports(const std::vector<PortSpec>& specs) {
  std::vector<BoundPort> bound;
  for (const auto& spec : specs) {
    for (const auto& ip : spec.host_ips) {
      PublishedPort port;
      port.host_ip = ip;
      port.host_port = spec.host_port;
      port.protocol = spec.protocol;
      const auto holders = SBX_TRY(port_store_.holders(port), "publishing a port");
      for (const auto& id : holders) {
        const auto live = live_.find(id);
        if (live == live_.end() || !live->second->ports.contains(port.name())) continue;
        const auto holder = SBX_TRY(store_.find(id), "publishing a port");
        return fail(ErrorCode::kConflict, "publish port: port " + port.name() + " is already published" +
                                              (holder ? " by sandbox '" + holder->name + "'" : "") +
                                              "; choose another, or release it with 'sbx ports " +
                                              (holder ? holder->name : id) + " --unpublish " + spec.text + "'");
      }
    }
    auto sockets = SBX_TRY(bind_spec(spec), "publishing a port");
    std::ranges::move(sockets, std::back_inserter(bound));
  }
  return bound;
}

std::vector<BoundPort> Lifecycle::bind_stored_ports(const store::Sandbox& row, const Progress& progress) {
  std::vector<BoundPort> bound;
  auto stored = port_store_.of(row.id);
  if (!stored || stored->empty()) return bound;
  for (auto& port : *stored) {
    auto socket = bind_again(port);
    if (!socket) {
      progress("WARNING: " + socket.error().message + ". Sandbox " + row.name + " starts without it");
      continue;
    }
    port = socket->port;
    bound.push_back(std::move(*socket));
  }
  (void)port_store_.set(row.id, *stored);  // ephemeral ones may have changed
  return bound;
}

Awaitable<Result<void>> Lifecycle::serve_ports(std::string id, const std::vector<BoundPort>& bound) {
  for (const auto& [port, socket] : bound) {
    const auto order =
        message(Order::kPublish, port.name(), static_cast<std::int32_t>(port.sandbox_port), port.protocol == "udp");
    SBX_CO_CHECK(co_await order_ports(paths_.runtime(id), order, socket.get()), "publishing port " + port.name());
    if (const auto live = live_.find(id); live != live_.end()) live->second->ports.insert(port.name());
  }
  co_return Result<void>{};
}

Awaitable<void> Lifecycle::serve_stored_ports(std::string id, std::vector<BoundPort> bound, Progress progress) {
  const auto served = co_await serve_ports(id, bound);
  if (!served) progress("WARNING: " + served.error().describe());
}

Awaitable<void> Lifecycle::close_ports(std::string id, const std::vector<PublishedPort>& ports) {
  for (const auto& port : ports) {
    (void)co_await order_ports(paths_.runtime(id), message(Order::kWithdraw, port.name()));
    if (const auto live = live_.find(id); live != live_.end()) live->second->ports.erase(port.name());
  }
}

// A daemon that was restarted: what the keeper serves stays as it is. A port that was stored and never handed over,
// since the daemon died in between, is bound and handed over now; one that somebody else has by now is shown as not
// listening, and can be published again.
Awaitable<void> Lifecycle::adopt_ports(store::Sandbox row) {
  auto stored = port_store_.of(row.id);
  if (!stored) co_return;
  std::vector<BoundPort> bound;
  for (auto& port : *stored) {
    const auto known = co_await order_ports(paths_.runtime(row.id), message(Order::kAsk, port.name()));
    if (known) {
      if (const auto live = live_.find(row.id); live != live_.end()) live->second->ports.insert(port.name());
      continue;
    }
    if (known.error().code != ErrorCode::kNotFound) continue;
    auto socket = bind_again(port);
    if (!socket) continue;
    port = socket->port;
    bound.push_back(std::move(*socket));
  }
  if (bound.empty()) co_return;
  (void)port_store_.set(row.id, *stored);  // ephemeral ones may have changed
  (void)co_await serve_ports(row.id, bound);
}

Awaitable<Result<Lifecycle::PortChange>> Lifecycle::change_ports(std::string name, std::vector<std::string> publish,
                                                                 std::vector<std::string> unpublish,
                                                                 Progress progress) {
  SBX_CO_TRY(auto row, require(name), "changing ports");
  SBX_CO_TRY(auto guard, co_await lock(row.id), "waiting for the sandbox");
  SBX_CO_TRY(row, require(row.id), "changing ports");
  std::vector<PortSpec> specs;
  for (const auto& text : publish) {
    SBX_CO_TRY(auto spec, parse_port_spec(text), "publishing a port");
    specs.push_back(std::move(spec));
  }
  SBX_CO_TRY(const auto before, port_store_.of(row.id), "changing ports");
  PortChange change;
  for (const auto& text : unpublish) {
    SBX_CO_TRY(const auto found, ports_to_withdraw(text, before), "unpublishing a port");
    for (const auto& port : found) {
      if (std::ranges::find(change.unpublished, port) == change.unpublished.end()) change.unpublished.push_back(port);
    }
  }
  if (!specs.empty()) {
    const StartOptions options;
    SBX_CO_CHECK(co_await start_locked(row, options, progress), "starting the sandbox");
  }
  std::vector<PublishedPort> were_served;
  const bool runs = live_.contains(row.id);
  for (const auto& port : change.unpublished) {
    if (runs && live_[row.id]->ports.contains(port.name())) were_served.push_back(port);
  }
  if (runs) co_await close_ports(row.id, were_served);
  const auto published = co_await publish_locked(row, specs, without(before, change.unpublished));
  if (!published) {
    // All or nothing: what was withdrawn comes back.
    std::vector<BoundPort> again;
    for (const auto& port : were_served) {
      auto bound = bind_again(port);
      if (bound) again.push_back(std::move(*bound));
    }
    co_await serve_stored_ports(row.id, std::move(again), progress);
    (void)port_store_.set(row.id, before);
    co_return std::unexpected(published.error());
  }
  change.published = *published;
  co_return change;
}

Awaitable<Result<std::vector<PublishedPort>>> Lifecycle::publish_locked(store::Sandbox row, std::vector<PortSpec> specs,
                                                                        std::vector<PublishedPort> kept) {
  SBX_CO_TRY(const auto bound, bind_ports(specs), "publishing ports");
  std::vector<PublishedPort> published;
  for (const auto& entry : bound) {
    // One that could not be had when the sandbox started may be there already.
    std::erase_if(kept, [&](const PublishedPort& port) { return port.name() == entry.port.name(); });
    published.push_back(entry.port);
  }
  kept.insert(kept.end(), published.begin(), published.end());
  SBX_CO_CHECK(port_store_.set(row.id, kept), "storing published ports");
  auto served = co_await serve_ports(row.id, bound);
  if (!served) {
    co_await close_ports(row.id, published);
    co_return std::unexpected(std::move(served.error()));
  }
  co_return published;
}

}  // namespace sbx::sandbox
