// The flags of `sbx policy`.
#include <CLI/CLI.hpp>
#include <memory>

#include "cli/command_groups.h"
#include "cli/policy_commands.h"

namespace sbx::cli {
namespace {

void add_scope(CLI::App* command, PolicyRuleOptions& o) {
  command->add_option("--sandbox", o.sandbox, "of this sandbox only");
  command->add_option("--profile", o.profile, "of this profile");
  command->add_option("--method", o.methods, "HTTP methods, or ANY")->allow_extra_args(false);
  command->add_option("--path", o.path, "HTTP path, such as /repos/**; with --method");
}

void add_rules(CLI::App* policy, const OnCommand& on) {
  for (const std::string decision : {"allow", "deny"}) {
    auto o = std::make_shared<PolicyRuleOptions>();
    auto* group = policy->add_subcommand(decision, decision + " destinations; takes effect at once");
    auto* network = group->add_subcommand("network", "hosts, addresses and networks");
    network->add_option("RESOURCES", o->resources, "such as example.com,**.example.org:443")->required();
    network
        ->add_option("--protocol", o->protocols,
                     decision == "allow" ? "tcp (default) or udp" : "tcp, udp (default both)")
        ->allow_extra_args(false);
    add_scope(network, *o);
    on(network, [o, decision](const ApiClient& client) { return policy_add(client, decision, *o); });
  }
  auto o = std::make_shared<PolicyRuleOptions>();
  auto* network = policy->add_subcommand("rm", "remove rules")->add_subcommand("network", "network rules");
  network->add_option("--id", o->id, "the rule with this id");
  network->add_option("--resource", o->resources, "this resource, from every rule of the scope")
      ->allow_extra_args(false);
  network->add_flag("-f,--force", o->force, "do not ask");
  add_scope(network, *o);
  on(network, [o](const ApiClient& client) { return policy_remove(client, *o); });
}

void add_views(CLI::App* policy, const OnCommand& on) {
  auto l = std::make_shared<PolicyListOptions>();
  auto* ls = policy->add_subcommand("ls", "list rules");
  auto include_inactive = std::make_shared<bool>(false);
  ls->add_option("SANDBOX", l->sandbox, "only what applies to this sandbox");
  ls->add_flag("--wide", l->wide, "one line per resource");
  ls->add_flag("--json", l->json, "as JSON");
  ls->add_option("--source", l->source)->check(CLI::IsMember({"local", "org", "kit"}));
  ls->add_option("--decision", l->decision)->check(CLI::IsMember({"allow", "deny"}));
  ls->add_option("--type", l->type)->check(CLI::IsMember({"all", "network", "filesystem", "http"}));
  ls->add_option("--protocol", l->protocol)->check(CLI::IsMember({"tcp", "udp"}));
  ls->add_option("--created-via", l->created_via)
      ->check(CLI::IsMember({"default", "added", "provisioned", "approval"}));
  ls->add_flag("--include-inactive", *include_inactive, "accepted; every rule is active");
  on(ls, [l, include_inactive](const ApiClient& client) { return policy_list(client, *l); });

  auto name = std::make_shared<std::string>();
  auto json = std::make_shared<bool>(false);
  auto* inspect = policy->add_subcommand("inspect", "everything about a rule or policy");
  inspect->add_option("RULE", *name, "id or name of a rule, or name of a policy")->required();
  inspect->add_flag("--json", *json, "as JSON");
  on(inspect, [name, json](const ApiClient& client) { return policy_inspect(client, *name, *json); });

  auto c = std::make_shared<PolicyCheckOptions>();
  auto* check =
      policy->add_subcommand("check", "what the gateway would decide")->add_subcommand("network", "a destination");
  check->add_option("TARGET", c->target, "HOST, HOST:PORT, address or URL")->required();
  check->add_option("--sandbox", c->sandbox, "for this sandbox");
  check->add_option("--protocol", c->protocol, "tcp (default) or udp");
  check->add_option("--method", c->method, "for an HTTP request with this method");
  check->add_option("--path", c->path, "and this path");
  check->add_flag("--json", c->json, "as JSON");
  check->add_flag("--verbose", c->verbose, "with the rule");
  on(check, [c](const ApiClient& client) { return policy_check(client, *c); });

  auto g = std::make_shared<PolicyLogOptions>();
  auto* log = policy->add_subcommand("log", "what was decided");
  log->add_option("SANDBOX", g->sandbox, "only this sandbox");
  log->add_option("--limit", g->limit, "most lines")->check(CLI::NonNegativeNumber);
  log->add_option("--type", g->type)->check(CLI::IsMember({"all", "network", "filesystem"}));
  log->add_flag("--json", g->json, "as JSON; with --follow one object a line");
  log->add_flag("-q,--quiet", g->quiet, "hosts only");
  log->add_flag("-f,--follow", g->follow, "every decision as it happens");
  on(log, [g](const ApiClient& client) { return policy_log(client, *g); });
}

void add_profiles(CLI::App* policy, const OnCommand& on) {
  auto* group = policy->add_subcommand("profile", "named sets of rules that are attached to sandboxes");
  auto json = std::make_shared<bool>(false);
  auto* ls = group->add_subcommand("ls", "list them");
  ls->add_flag("--json", *json, "as JSON");
  on(ls, [json](const ApiClient& client) { return policy_profile_list(client, *json); });
  for (const auto& [verb, help] :
       {std::pair<std::string, std::string>{"create", "make one; fill it with policy allow --profile"},
        {"rm", "remove one and its rules"},
        {"attach", "its rules apply to the sandbox from now on"},
        {"detach", "they do no more"}}) {
    auto profile = std::make_shared<std::string>();
    auto sandbox = std::make_shared<std::string>();
    auto* command = group->add_subcommand(verb, help);
    command->add_option("PROFILE", *profile)->required();
    if (verb == "attach" || verb == "detach") command->add_option("SANDBOX", *sandbox)->required();
    on(command, [verb = verb, profile, sandbox](const ApiClient& client) {
      return policy_profile_change(client, verb, *profile, *sandbox);
    });
  }
}

}  // namespace

void add_policy_commands(CLI::App& app, const OnCommand& on) {
  auto* policy = app.add_subcommand("policy", "what sandboxes may reach");
  for (const char* word : {"init", "set-default"}) {
    auto preset = std::make_shared<std::string>();
    auto* init = policy->add_subcommand(word, "begin with a preset");
    if (std::string(word) != "init") init->group("");
    init->add_option("PRESET", *preset, "balanced, allow-all or deny-all");
    on(init, [preset](const ApiClient& client) { return policy_init(client, *preset); });
  }
  add_rules(policy, on);
  add_views(policy, on);
  add_profiles(policy, on);
  auto force = std::make_shared<bool>(false);
  auto* reset = policy->add_subcommand("reset", "remove all rules and profiles");
  reset->add_flag("-f,--force", *force, "do not ask");
  on(reset, [force](const ApiClient& client) { return policy_reset(client, *force); });
}

}  // namespace sbx::cli
