// What all connections of one gateway share: the configuration of the moment, the resolver, the log, TLS towards
// servers, and the list of what is open, so that a new configuration can cut what it denies. One executor.
#pragma once

#include <functional>
#include <list>
#include <memory>

#include "gateway/config.h"
#include "gateway/decision_log.h"
#include "gateway/resolver.h"
#include "gateway/tls_contexts.h"
#include "wire/signal.h"

namespace sbx::gateway {

class Gateway {
 public:
  Gateway(const boost::asio::any_io_executor& executor, UpstreamTls tls)
      : executor_(executor),
        upstream_tls_(std::move(tls)),
        log_(executor),
        changed_(executor),
        logins_changed_(executor) {}

  // Keeps a connection (or a request) on the list while it lives. `reset` is called at most once.
  class Open {
   public:
    Open(Gateway& gateway, policy::Target target, std::function<void()> reset);
    ~Open();
    Open(const Open&) = delete;
    Open& operator=(const Open&) = delete;
    // For what the target turned out to lead to; checked at each change of policy as well.
    struct End {
      policy::Address address;
      bool own = false;  // of this host
    };
    void connected_to(End end);

   private:
    friend class Gateway;
    struct Entry {
      policy::Target target;
      std::optional<End> end;
      std::function<void()> reset;
    };
    Gateway& gateway_;
    std::list<Entry>::iterator entry_;
  };

  // Null until the first configuration.
  const std::shared_ptr<GatewayConfig>& config() const { return config_; }
  Awaitable<void> configured();
  // `logins_seen`: the change of a login that the configuration knows of.
  void configure(std::shared_ptr<GatewayConfig> config, std::uint64_t logins_seen);

  void login_changed(OauthLogin& login);
  // Those that changed since the change number `seen`, which moves on; waits for one, or until `ended` is
  // true and wake_login_followers() was called.
  Awaitable<std::vector<std::shared_ptr<OauthLogin>>> changed_logins(std::uint64_t& seen, const bool& ended);
  void wake_login_followers() { logins_changed_.notify(); }

  const boost::asio::any_io_executor& executor() const { return executor_; }
  const UpstreamTls& upstream_tls() const { return upstream_tls_; }
  Resolver& resolver() { return resolver_; }
  DecisionLog& log() { return log_; }
  // What policy of the moment says about a target that leads there.
  policy::Decision decide_end(const policy::Target& target, const Open::End& end) const {
    return end.own ? config_->policy.decide_own_address(target, end.address)
                   : config_->policy.decide_address(target, end.address);
  }
  std::size_t open_count() const { return open_.size(); }

 private:
  boost::asio::any_io_executor executor_;
  UpstreamTls upstream_tls_;
  Resolver resolver_;
  DecisionLog log_;
  std::shared_ptr<GatewayConfig> config_;
  wire::Signal changed_;
  std::uint64_t login_changes_ = 0;
  wire::Signal logins_changed_;
  std::list<Open::Entry> open_;
};

}  // namespace sbx::gateway
