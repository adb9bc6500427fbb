// `sbx secret ...`: one function per command, its options as plain values (secret_command_line.cpp fills them in).
#pragma once

#include <string>
#include <vector>

#include "cli/api_client.h"

namespace sbx::cli {

// Where a value comes from, for `set` and `set-custom`.
struct SecretSource {
  std::string value;  // from the command line
  std::string ref, command, refresh;
  bool no_verify = false, show_error = false;
};
struct SecretSetOptions {
  std::vector<std::string> words;  // SERVICE, or (deprecated) SANDBOX SERVICE
  std::string sandbox;
  bool global = false, force = false, oauth = false;
  SecretSource source;
  std::string registry, username, auth_endpoint;
  bool password_stdin = false, all_sandboxes = false;
};
struct SecretCustomOptions {
  std::vector<std::string> hosts;
  std::string env, placeholder, sandbox;
  bool in_body = false, force = false;
  SecretSource source;
};
struct SecretListOptions {
  std::string sandbox, service;
  bool global = false, json = false, quiet = false;
};
struct SecretRemoveOptions {
  std::string service, sandbox, registry, host, env, placeholder;
  bool global = false, all_sandboxes = false, all = false, force = false;
};
struct SecretImportOptions {
  std::string service;
  bool all = false, dry_run = false, force = false;
};

Result<int> secret_set(const ApiClient&, const SecretSetOptions&);
Result<int> secret_set_custom(const ApiClient&, const SecretCustomOptions&);
Result<int> secret_list(const ApiClient&, const SecretListOptions&);
Result<int> secret_remove(const ApiClient&, const SecretRemoveOptions&);
Result<int> secret_import(const ApiClient&, const SecretImportOptions&);

}  // namespace sbx::cli
