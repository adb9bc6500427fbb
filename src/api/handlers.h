// One function per JSON route (api/openapi.yaml describes each).
#pragma once

#include "api/routes.h"

namespace sbx::api {

#define SBX_HANDLER(name) Awaitable<Result<nlohmann::json>> name(Daemon& daemon, Request request, Progress progress)
SBX_HANDLER(get_daemon);
SBX_HANDLER(stop_daemon);
SBX_HANDLER(diagnose);
SBX_HANDLER(list_sandboxes);
SBX_HANDLER(create_sandbox);
SBX_HANDLER(get_sandbox);
SBX_HANDLER(remove_sandbox);
SBX_HANDLER(start_sandbox);
SBX_HANDLER(stop_sandbox);
SBX_HANDLER(list_ports);
SBX_HANDLER(change_ports);
SBX_HANDLER(add_mount);
SBX_HANDLER(remove_mount);
SBX_HANDLER(run_detached);
SBX_HANDLER(list_execs);
SBX_HANDLER(signal_exec);
SBX_HANDLER(resize_exec);
SBX_HANDLER(prune);
SBX_HANDLER(reset);
SBX_HANDLER(list_secrets);
SBX_HANDLER(set_secret);
SBX_HANDLER(remove_secrets);
SBX_HANDLER(list_images);
SBX_HANDLER(build_image);
SBX_HANDLER(remove_image);
SBX_HANDLER(list_templates);
SBX_HANDLER(remove_template);
SBX_HANDLER(get_policy);
SBX_HANDLER(init_policy);
SBX_HANDLER(reset_policy);
SBX_HANDLER(list_rules);
SBX_HANDLER(add_rule);
SBX_HANDLER(remove_rules);
SBX_HANDLER(check_policy);
SBX_HANDLER(list_profiles);
SBX_HANDLER(create_profile);
SBX_HANDLER(remove_profile);
SBX_HANDLER(attach_profile);
SBX_HANDLER(detach_profile);
SBX_HANDLER(get_policy_log);

// The secrets that a sandbox has the use of: [{"name","source":"global|sandbox"}].
Awaitable<nlohmann::json> secrets_of(Daemon& daemon, std::string sandbox_id);

// What policy a sandbox is under: {"scope":"global|sandbox","preset"?,"profiles"?}.
Result<nlohmann::json> network_policy_of(Daemon& daemon, const std::string& sandbox_id);

// What a sandbox publishes, as in GET /v1/sandboxes/{name}/ports.
nlohmann::json ports_of(Daemon& daemon, const std::string& sandbox_id, bool only_listening);

// An ExecHead (docs/development/protocols.md) from what a client sent; kInvalid names what is wrong.
Result<nlohmann::json> exec_head(const nlohmann::json& body);

// What a request says of its client's SSH agent ("ssh_agent"), for a sandbox that one is forwarded to.
Result<void> follow_ssh_agent(Daemon& daemon, const std::string& name, const nlohmann::json& body);

// From the query of the policy log's routes: sandbox, type, limit.
Result<policy::LogFilter> log_filter(Daemon& daemon, Request& request);

}  // namespace sbx::api
