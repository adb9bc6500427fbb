// Running a command attached: a WebSocket to the daemon, driven by one blocking poll loop (api/openapi.yaml, attach).
#pragma once

#include <chrono>
#include <functional>
#include <optional>

#include "cli/api_client.h"

namespace sbx::cli {

struct AttachOptions {
  nlohmann::json command;  // ExecRequest
  int stdin_fd = 0;        // -1: the command's stdin is empty
  // Output as it comes (stream 1 or 2); without it, to our own stdout and stderr.
  std::function<Result<void>(int stream, std::string_view data)> sink;
  // How long the command may take in all; kTimeout then, and it is ended. For what nobody waits for at a terminal.
  std::optional<std::chrono::seconds> deadline = {};
  bool raw_terminal = false;  // put our terminal into raw mode and follow its size
};

// Shell-style exit status of the command: its own, 128 + signal, 126 or 127. An Error if it never ran or its sandbox
// was lost.
Result<int> attach(const ApiClient& client, const std::string& sandbox, AttachOptions options);

// {"rows","cols"} of our terminal; null if we have none.
nlohmann::json terminal_size();
// The exit status that an ExecStatus means; its "error" goes to stderr.
int exit_status(const nlohmann::json& status);

}  // namespace sbx::cli
