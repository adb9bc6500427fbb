// The gateways of running sandboxes: what they and their guests are told.
#include <boost/asio/detached.hpp>

#include "sandbox/gateway_config.h"
#include "sandbox/guest_environment.h"
#include "sandbox/lifecycle.h"

namespace sbx::sandbox {
using namespace std::chrono_literals;

namespace {

// Every gateway is told of a change at once; one that is slow does not keep the person waiting.
constexpr auto kRefreshPatience = 5s;

}  // namespace

Result<const CertificateAuthority*> Lifecycle::authority() {
  if (!authority_) authority_ = SBX_TRY(CertificateAuthority::open(paths_.home), "opening the certificate authority");
  return &*authority_;
}

// Values that differ come last: what a person set at creation stands.
Awaitable<Result<GuestFacts>> Lifecycle::guest_facts(store::Sandbox row) {
  SBX_CO_TRY(const auto* authority, authority(), "preparing the sandbox's environment");
  GuestFacts facts;
  facts.environment = gateway_environment(row.id, authority->root_certificate());
  auto sentinels = co_await secrets_.environment(row.id);
  // A keyring that is locked must not keep a sandbox from starting; its gateway is told once it can be.
  if (sentinels) facts.environment.insert(facts.environment.end(), sentinels->begin(), sentinels->end());
  SBX_CO_TRY(const auto agent, ssh_agents_.of(row.id), "preparing the sandbox's environment");
  facts.ssh_agent = agent.has_value();
  if (agent) facts.environment.emplace_back("SSH_AUTH_SOCK=/run/ssh-agent.sock");  // guest/agent_relay.h
  facts.environment.insert(facts.environment.end(), row.env.begin(), row.env.end());
  facts.authorities.push_back(authority->root_certificate());
  for (auto& pem : host_authorities()) facts.authorities.push_back(std::move(pem));
  co_return facts;
}

Awaitable<Result<std::string>> Lifecycle::gateway_configuration(std::string id) {
  SBX_CO_TRY(const auto row, require(id), "configuring the gateway");
  SBX_CO_TRY(const auto* authority, authority(), "configuring the gateway");
  SBX_CO_TRY(const nlohmann::json policy, policy_.document(id), "configuring the gateway");
  GatewayConfigParts parts;
  parts.sandbox_id = row.id;
  parts.name = row.name;
  parts.policy = &policy;
  parts.root = authority->root_certificate();
  SBX_CO_TRY(parts.intermediate, authority->intermediate(row.name), "configuring the gateway");
  // Without its credentials a gateway is still one; why they are missing is told where secrets are listed.
  const auto credentials = co_await secrets_.credentials(id);
  if (credentials) parts.credentials = credentials->json.reveal();
  if (const auto live = live_.find(id); live != live_.end()) {
    live->second->withheld = credentials ? credentials->withheld : std::vector{credentials.error().describe()};
  }
  co_return gateway_config(parts);
}

std::optional<Lifecycle::GatewayView> Lifecycle::gateway(const std::string& id) const {
  const auto live = live_.find(id);
  if (live == live_.end() || !live->second->gateway) return std::nullopt;
  const auto& link = *live->second->gateway;
  return GatewayView{link.state(), live->second->withheld, link.unkept_login()};
}

std::shared_ptr<GatewayLink> Lifecycle::link_gateway(const store::Sandbox& row) {
  const std::string id = row.id;
  const std::string name = row.name;
  auto link = std::make_shared<GatewayLink>(
      loop_.get_executor(), paths_.runtime(id) / "gateway.sock", [this, id] { return gateway_configuration(id); },
      [this, id, name](const nlohmann::json& entry) { return policy_log_.record(id, name, entry); },
      [this, id](std::shared_ptr<const secret::LoginUpdate> login) {
        return secrets_.keep_login(id, std::move(login));
      });
  link->start();
  return link;
}

Awaitable<std::vector<std::string>> Lifecycle::refresh_gateways(std::string scope) {
  std::vector<std::string> told;
  const auto live = live_;  // what starts meanwhile is told when it starts
  for (const auto& [id, keeper] : live) {
    if (!keeper->gateway || (!scope.empty() && scope != "global" && scope != id)) continue;
    const auto taken = co_await keeper->gateway->refresh(kRefreshPatience);
    const auto row = store_.find(id);
    if (taken && row && *row) told.push_back((*row)->name);
  }
  co_return told;
}

void Lifecycle::follow_changes() {
  secrets_.on_change([this](std::string scope) { return refresh_gateways(std::move(scope)); });
  policy_changes_ = policy_.on_change([this](const std::string& id) {
    boost::asio::co_spawn(
        loop_, [this, id]() -> Awaitable<void> { (void)co_await refresh_gateways(id); }, boost::asio::detached);
  });
}

}  // namespace sbx::sandbox
