// What every command is given. One thread.
#pragma once

#include <functional>
#include <iostream>
#include <string>
#include <vector>

#include "cli/client.h"
#include "cli/output.h"

namespace CLI {
class App;
}

namespace sbx::cli {

struct Context {
  Client client;
  bool debug = false;
  // What stood after `--` on the command line (run's agent arguments).
  std::vector<std::string> rest;
  int status = 0;  // set by the command that ran
};

// Progress of long work, on stderr.
void show_progress(const std::string& text);

// Each adds its commands to `app`; a command's callback sets context.status.
void add_sandbox_commands(CLI::App& app, Context& context);
void add_host_commands(CLI::App& app, Context& context);
void add_unbuilt_commands(CLI::App& app, Context& context);

// `exec` is parsed by hand: what follows the sandbox's name belongs to the command, word for word.
int run_exec(Context& context, const std::vector<std::string>& arguments);

// `run`'s and `exec`'s way into a sandbox: attaches, prints an error with `error_status`.
int attach_and_report(Context& context, const std::string& sandbox, nlohmann::json request, bool tty, int error_status);

}  // namespace sbx::cli
