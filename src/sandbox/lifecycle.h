// Lifecycle: every sandbox of this daemon, from creation to removal.
//
// States: creating -> running <-> stopped -> (removing) -> gone. A row is committed before anything is spawned; what a
// crash leaves behind is put in order by adopt(). Operations on one sandbox wait for each other; those on different
// sandboxes run side by side. All calls on the daemon's one event loop. A sandbox may be named by name or id.
#pragma once

#include <boost/asio/io_context.hpp>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "policy/policy_log.h"
#include "policy/policy_store.h"
#include "sandbox/artifacts.h"
#include "sandbox/async.h"
#include "sandbox/certificate_authority.h"
#include "sandbox/create_request.h"
#include "sandbox/gateway_link.h"
#include "sandbox/keeper_client.h"
#include "sandbox/keeper_process.h"
#include "sandbox/launch_spec.h"
#include "sandbox/port_binding.h"
#include "sandbox/secrets.h"
#include "sandbox/spares.h"
#include "store/paths.h"
#include "store/sandbox_store.h"
#include "store/ssh_agent_store.h"

namespace sbx::sandbox {

// An attached command: the stream of POST /exec at the keeper, its head already sent. While this object lives the
// sandbox counts as in use.
struct ExecSession {
  std::string id;
  std::shared_ptr<KeeperClient> keeper;
  std::shared_ptr<wire::Http2Stream> stream;
  std::shared_ptr<void> in_use;
};

// The status of a keeper's answer to POST /exec when its machine has ended: nothing was started.
inline constexpr int kMachineEnded = 409;

class Lifecycle {
 public:
  Lifecycle(boost::asio::io_context& loop, store::Paths paths, store::Database& database,
            std::filesystem::path programs);
  ~Lifecycle();

  // At daemon start, before the first request: takes over the keepers that are there, cleans up what is half made.
  Awaitable<void> adopt();
  // Makes spare clones and gives them up, if the daemon is to keep any (SBX_SPARES); runs for ever.
  Awaitable<void> keep_spares() { return spares_.run(); }
  // Before a template is removed: its spares are gone when this returns.
  Awaitable<void> drop_spares(std::string template_id) { return spares_.forget(std::move(template_id)); }
  // Stops sandboxes that have been idle for their auto_stop_s; runs for ever.
  Awaitable<void> watch_idle();

  Awaitable<Result<store::Sandbox>> create(CreateRequest request, Progress progress);
  // Nothing happens to one that runs. True if it was started by this call. `cold` forgets the memory kept by stop and
  // boots from the disk; kConflict if the sandbox runs.
  struct StartOptions {
    bool cold = false;
  };
  Awaitable<Result<bool>> start(std::string name, StartOptions options, Progress progress);
  Awaitable<Result<void>> stop(std::string name);
  // kConflict if a session is attached and `force` is not set.
  struct RemoveOptions {
    bool force = false;
  };
  Awaitable<Result<void>> remove(std::string name, RemoveOptions options);
  // Into a sandbox that is there, running or not, and for good. kConflict if it would hide a workspace.
  Awaitable<Result<store::Sandbox>> mount(std::string name, store::Workspace workspace);
  // What is mounted at this place of the sandbox; kNotFound if nothing is, kInvalid for the primary workspace,
  // kConflict while a process of the sandbox uses it and `force` is not set.
  struct UnmountOptions {
    bool force = false;
  };
  Awaitable<Result<store::Sandbox>> unmount(std::string name, std::string target, UnmountOptions options);
  Result<store::Sandbox> find(const std::string& name);
  Result<std::vector<store::Sandbox>> list();
  // The keeper's own view; null when the sandbox does not run.
  Awaitable<nlohmann::json> status(std::string name);
  // Of the gateway of a running sandbox: how it is (GatewayLink::state()), the credentials that could not be fetched
  // for it, and the login that could not be stored (GatewayLink::unkept_login()), for people. nullopt when the sandbox
  // does not run.
  struct GatewayView {
    std::string state;
    std::vector<std::string> withheld;
    std::string unkept_login;
  };
  std::optional<GatewayView> gateway(const std::string& id) const;

  // Starts the sandbox if it is stopped. `head` is an ExecHead without id.
  Awaitable<Result<ExecSession>> exec(std::string name, nlohmann::json head, Progress progress);
  // After the keeper's answer kMachineEnded to an exec(): returns when the keeper is gone (or does not go), so that the
  // next exec() starts the sandbox again.
  Awaitable<void> wait_for_end_of(std::string name);
  Awaitable<Result<nlohmann::json>> exec_detached(std::string name, nlohmann::json head, Progress progress);
  // The keeper of the sandbox that runs exec `exec_id`.
  Result<std::shared_ptr<KeeperClient>> keeper_of_exec(const std::string& exec_id);
  // kUnavailable "not running" if it does not run.
  Result<std::shared_ptr<KeeperClient>> keeper_of(const std::string& name);

  // The socket of the SSH agent that is forwarded to a sandbox, if one is.
  Result<std::optional<std::string>> ssh_agent(const std::string& id);
  // A client whose SSH agent listens on `socket` uses the sandbox: if one is forwarded there, it is this one from now
  // on.
  Result<void> follow_ssh_agent(const std::string& name, const std::string& socket);

  struct PortView {
    store::PublishedPort port;
    bool listening = false;
  };
  Result<std::vector<PortView>> ports(const std::string& name);
  // All of it or nothing: specifications as people write them (port_spec.h). Publishing starts a stopped sandbox;
  // unpublishing ends open connections. kConflict says who has a port.
  struct PortChange {
    std::vector<store::PublishedPort> published, unpublished;
  };
  Awaitable<Result<PortChange>> change_ports(std::string name, std::vector<std::string> publish,
                                             std::vector<std::string> unpublish, Progress progress);

  Artifacts& artifacts() { return artifacts_; }
  Secrets& secrets() { return secrets_; }
  policy::PolicyStore& policy() { return policy_; }
  policy::PolicyLog& policy_log() { return policy_log_; }
  bool any_running() const { return !live_.empty(); }
  const store::Paths& paths() const { return paths_; }
  boost::asio::thread_pool& pool() { return pool_; }

 private:
  // A keeper that runs.
  struct Live {
    explicit Live(boost::asio::any_io_executor executor) : ended(executor) {}
    pid_t pid = 0;
    std::shared_ptr<boost::asio::posix::stream_descriptor> pidfd;
    std::shared_ptr<KeeperClient> client;
    std::shared_ptr<GatewayLink> gateway;
    std::vector<std::string> withheld;  // by the last configuration of the gateway
    Event ended;
    int sessions = 0;
    std::set<std::string> ports;  // names of those that the keeper serves
  };

  Awaitable<Result<AsyncMutex::Guard>> lock(std::string id);
  Result<void> ensure_policy(const Progress& progress);
  Result<void> add_policy(const store::Sandbox& row, const CreateRequest& request);
  Awaitable<Result<void>> make_clone(std::string id, ClonePlan plan, Progress progress);
  Awaitable<Result<void>> place_clone_again(const store::Sandbox& row);
  Awaitable<Result<int>> run_in_sandbox(std::string id, std::vector<std::string> argv, const char* user,
                                        std::chrono::milliseconds deadline);
  Awaitable<Result<void>> furnish(store::Sandbox& row, const CreateRequest& request, std::unique_ptr<Spare>& spare,
                                  Progress progress);
  std::string new_id() const;
  Result<void> insert(store::Sandbox& row, const std::string& wanted_name);
  // The template's choice for `row`, which then is what it is.
  Awaitable<Result<void>> choose_template(store::Sandbox& row, const CreateRequest& request, Progress progress);
  Awaitable<Result<void>> launch_new(store::Sandbox& row, std::unique_ptr<Spare> spare, store::State then);
  Awaitable<Result<void>> adopt_spare(store::Sandbox& row, std::unique_ptr<Spare> spare, store::State then);
  Result<store::Sandbox> require(const std::string& name);
  Result<void> write_mounts(const store::Sandbox& row) const;
  Awaitable<Result<void>> tell_mounts(const store::Sandbox& row, std::string path, store::Workspace changed,
                                      bool force);
  Awaitable<Result<bool>> start_locked(store::Sandbox row, StartOptions options, Progress progress);
  // `then`: the row's state once it is up.
  Awaitable<Result<void>> launch(store::Sandbox& row, std::string mode, store::State then = store::State::kRunning);
  Awaitable<Result<void>> stop_locked(store::Sandbox row);
  // How a keeper is ended: kept if possible (memory, else clean), its VM killed, or the process killed at once.
  enum class Ending { kKeep, kKillMachine, kAtOnce };
  Awaitable<void> end_keeper(std::string id, Ending ending);
  Awaitable<Result<void>> erase(store::Sandbox row);
  std::shared_ptr<Live> watch(const store::Sandbox& row, UniqueFd pidfd, std::shared_ptr<KeeperClient> client);
  Awaitable<void> wait_for_end(std::string id, std::shared_ptr<Live> live);
  Result<std::shared_ptr<KeeperClient>> client_of(const std::string& id);
  Awaitable<void> adopt_one(store::Sandbox row);
  Awaitable<void> end_strangers(std::vector<store::Sandbox> rows);
  void mark_stopped(store::Sandbox row);
  Awaitable<bool> is_idle(store::Sandbox row);
  Result<void> offer_ssh_agent(const store::Sandbox& row);
  Result<const CertificateAuthority*> authority();
  Awaitable<Result<GuestFacts>> guest_facts(store::Sandbox row);
  Awaitable<Result<std::string>> gateway_configuration(std::string id);
  std::shared_ptr<GatewayLink> link_gateway(const store::Sandbox& row);
  // Tells the gateways of a change: of one sandbox ("scope" is its id) or of all. The names of those that have it now.
  Awaitable<std::vector<std::string>> refresh_gateways(std::string scope);
  void follow_changes();
  Result<std::vector<BoundPort>> bind_ports(const std::vector<PortSpec>& specs);
  // Those of an earlier run; says which cannot be had.
  std::vector<BoundPort> bind_stored_ports(const store::Sandbox& row, const Progress& progress);
  Awaitable<Result<void>> serve_ports(std::string id, const std::vector<BoundPort>& bound);
  Awaitable<void> serve_stored_ports(std::string id, std::vector<BoundPort> bound, Progress progress);
  Awaitable<void> close_ports(std::string id, const std::vector<store::PublishedPort>& ports);
  Awaitable<void> adopt_ports(store::Sandbox row);
  Awaitable<Result<std::vector<store::PublishedPort>>> publish_locked(store::Sandbox row, std::vector<PortSpec> specs,
                                                                      std::vector<store::PublishedPort> kept);
  struct DetachedAnswer {
    std::string id;
    int status = 0;
    std::string body;
  };
  Awaitable<Result<DetachedAnswer>> start_detached(std::string name, nlohmann::json head, Progress progress);
  static Result<nlohmann::json> detached_outcome(const DetachedAnswer& answer);
  Awaitable<Result<std::shared_ptr<Live>>> ready_for_exec(const store::Sandbox& row, Progress progress);

  boost::asio::io_context& loop_;
  store::Paths paths_;
  store::SandboxStore store_;
  store::PortStore port_store_;
  store::SshAgentStore ssh_agents_;
  policy::PolicyStore policy_;
  policy::PolicyLog policy_log_;
  boost::asio::thread_pool pool_;
  Artifacts artifacts_;
  Secrets secrets_;
  Spares spares_;
  policy::Subscription policy_changes_;
  std::optional<CertificateAuthority> authority_;
  std::map<std::string, std::shared_ptr<Live>> live_;         // by id
  std::map<std::string, std::shared_ptr<AsyncMutex>> locks_;  // by id
};

}  // namespace sbx::sandbox
