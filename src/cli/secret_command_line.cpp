// The flags of `sbx secret`.
#include <CLI/CLI.hpp>
#include <memory>

#include "cli/command_groups.h"
#include "cli/secret_commands.h"

namespace sbx::cli {
namespace {

void add_source(CLI::App* command, SecretSource& s) {
  command->add_option("--ref", s.ref, "fetch it: op://VAULT/ITEM/FIELD, or the ARN of an AWS Secrets Manager secret");
  command->add_option("--command", s.command, "fetch it: what this shell command on the host prints");
  command->add_option("--refresh", s.refresh, "fetch it again after this long (default 55m), or on-demand");
  command->add_flag("--no-verify", s.no_verify, "store --ref or --command without trying it");
  command->add_flag("--show-error", s.show_error, "show what --ref or --command says when it fails");
}

void add_set(CLI::App* secret, const OnCommand& on) {
  auto o = std::make_shared<SecretSetOptions>();
  auto* command = secret->add_subcommand("set", "store a service's credential, or a registry's password");
  command->add_option("SERVICE", o->words, "service, such as github or anthropic")->expected(0, 2);
  command->add_option("--sandbox", o->sandbox, "for this sandbox only");
  command->add_flag("-g,--global", o->global)->group("");
  command->add_option("-t,--token", o->source.value, "the value; other users can see it: better pipe it in");
  command->add_flag("-f,--force", o->force, "replace an existing one");
  command->add_flag("--oauth", o->oauth, "log in with a browser");
  add_source(command, o->source);
  command->add_option("--registry", o->registry, "a container registry's host, instead of a service");
  command->add_option("--username", o->username, "with --registry");
  command->add_flag("--password-stdin", o->password_stdin, "with --registry: the password from stdin");
  command->add_flag("--all-sandboxes", o->all_sandboxes, "with --registry: for sandboxes too, not only for sbx itself");
  command->add_option("--registry-auth-endpoint", o->auth_endpoint,
                      "with --registry: https:// URL of its token server");
  on(command, [o](const ApiClient& client) { return secret_set(client, *o); });
}

void add_set_custom(CLI::App* secret, const OnCommand& on) {
  auto o = std::make_shared<SecretCustomOptions>();
  auto* command = secret->add_subcommand("set-custom", "store any secret; sandboxes see a placeholder for it");
  command
      ->add_option("--host", o->hosts,
                   "host it may be sent to, such as api.example.com, api.example.com:8443 or **.example.com")
      ->required()
      ->delimiter(',')
      ->allow_extra_args(false);
  command->add_option("--env", o->env, "environment variable that holds the placeholder")->required();
  command->add_option("--value,--token", o->source.value, "the value; other users can see it: better pipe it in");
  command->add_option("--placeholder", o->placeholder, "shape of the placeholder, such as ghp_{rand:36}");
  command->add_option("--sandbox", o->sandbox, "for this sandbox only");
  command->add_flag("--in-body", o->in_body, "replace the placeholder in the bodies of requests too");
  command->add_flag("-f,--force", o->force, "replace an existing one");
  add_source(command, o->source);
  on(command, [o](const ApiClient& client) { return secret_set_custom(client, *o); });
}

}  // namespace

void add_secret_commands(CLI::App& app, const OnCommand& on) {
  auto* secret = app.add_subcommand("secret", "credentials that sandboxes can use and never see");
  secret->require_subcommand(1);
  add_set(secret, on);
  add_set_custom(secret, on);

  auto l = std::make_shared<SecretListOptions>();
  auto* ls = secret->add_subcommand("ls", "list secrets, masked");
  ls->add_option("--sandbox", l->sandbox, "those of this sandbox only");
  ls->add_flag("-g,--global", l->global, "global ones only");
  ls->add_option("--service", l->service, "those of this service only");
  ls->add_flag("--json", l->json, "as JSON");
  ls->add_flag("-q,--quiet", l->quiet, "names only");
  on(ls, [l](const ApiClient& client) { return secret_list(client, *l); });

  auto r = std::make_shared<SecretRemoveOptions>();
  auto* rm = secret->add_subcommand("rm", "remove secrets");
  rm->add_option("SERVICE", r->service, "service");
  rm->add_option("--sandbox", r->sandbox, "of this sandbox");
  rm->add_flag("-g,--global", r->global)->group("");
  rm->add_option("--registry", r->registry, "the password of this registry");
  rm->add_flag("--all-sandboxes", r->all_sandboxes, "with --registry: the one for sandboxes");
  rm->add_flag("--all", r->all, "all of them; with --sandbox, all of that sandbox");
  rm->add_flag("-f,--force", r->force, "do not ask");
  rm->add_option("--host", r->host, "custom secrets for this host")->group("");
  rm->add_option("--env", r->env, "the custom secret of this variable")->group("");
  rm->add_option("--placeholder", r->placeholder, "the custom secret with this placeholder")->group("");
  on(rm, [r](const ApiClient& client) { return secret_remove(client, *r); });

  auto i = std::make_shared<SecretImportOptions>();
  auto* import = secret->add_subcommand("import", "store credentials found in this environment");
  import->add_option("SERVICE", i->service, "service");
  import->add_flag("--all", i->all, "of every service that is found");
  import->add_flag("--dry-run", i->dry_run, "only say which");
  import->add_flag("-f,--force", i->force, "replace existing ones");
  on(import, [i](const ApiClient& client) { return secret_import(client, *i); });
}

}  // namespace sbx::cli
