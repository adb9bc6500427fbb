// Groups of commands that have a file of their own for their flags (CLI11 lives in the *command_line.cpp files only).
#pragma once

#include <functional>

#include "cli/api_client.h"

namespace CLI {
class App;
}

namespace sbx::cli {

using Action = std::function<Result<int>(const ApiClient&)>;
// Says what a subcommand does.
using OnCommand = std::function<void(CLI::App*, Action)>;

void add_policy_commands(CLI::App& app, const OnCommand& on);
void add_secret_commands(CLI::App& app, const OnCommand& on);

}  // namespace sbx::cli
