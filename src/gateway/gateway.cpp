#include "gateway/gateway.h"

#include <vector>

namespace sbx::gateway {

Gateway::Open::Open(Gateway& gateway, policy::Target target, std::function<void()> reset)
    : gateway_(gateway), entry_(gateway.open_.insert(gateway.open_.end(), {std::move(target), {}, std::move(reset)})) {}

Gateway::Open::~Open() { gateway_.open_.erase(entry_); }

void Gateway::Open::connected_to(End end) { entry_->end = std::move(end); }

Awaitable<void> Gateway::configured() {
  while (!config_) co_await changed_.wait();
}

void Gateway::login_changed(OauthLogin& login) {
  login.changed = ++login_changes_;
  logins_changed_.notify();
}

Awaitable<std::vector<std::shared_ptr<OauthLogin>>> Gateway::changed_logins(std::uint64_t& seen, const bool& ended) {
  std::vector<std::shared_ptr<OauthLogin>> changed;
  while ((login_changes_ <= seen || !config_) && !ended) co_await logins_changed_.wait();
  if (!config_) co_return changed;
  for (auto& login : config_->credentials.logins()) {
    if (login->changed > seen) changed.push_back(std::move(login));
  }
  seen = login_changes_;
  co_return changed;
}

void Gateway::configure(std::shared_ptr<GatewayConfig> config, std::uint64_t logins_seen) {
  if (config_) config->credentials.adopt_logins(config_->credentials, logins_seen);
  config_ = std::move(config);
  changed_.notify();
  // A reset may end its entry: nothing is called while the list is walked.
  std::vector<std::function<void()>> resets;
  for (auto& entry : open_) {
    const auto decision = entry.end ? decide_end(entry.target, *entry.end) : config_->policy.decide(entry.target);
    if (!decision.allowed && entry.reset) resets.push_back(std::exchange(entry.reset, nullptr));
  }
  for (const auto& reset : resets) reset();
}

}  // namespace sbx::gateway
