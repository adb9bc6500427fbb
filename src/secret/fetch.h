// Values that live elsewhere: in 1Password (op://...), in AWS Secrets Manager (an ARN), or wherever a command of the
// user's gets them. Blocking; any thread.
#pragma once

#include <chrono>
#include <map>
#include <string>
#include <vector>

#include "base/locked_string.h"

namespace sbx::secret {

// What is run for a reference: `op read ...`, `aws secretsmanager get-secret-value ...`. kInvalid for one that is
// neither an op:// URI nor an ARN of Secrets Manager.
Result<std::vector<std::string>> reference_command(const std::string& reference);
// What is run for a command: the host's shell.
std::vector<std::string> shell_command(const std::string& command);

struct FetchOptions {
  std::map<std::string, std::string> environment = {};  // set over the daemon's own
  std::chrono::milliseconds patience = std::chrono::seconds(30);
  bool show_error = false;  // the program's stderr in the error: it may hold anything, so only for who asks for it
};

// The program's stdout without white space at its ends, straight into locked memory. It runs in a fresh empty folder
// with nothing on stdin, in a session of its own, and is killed when it takes too long. kUnavailable if it fails,
// prints nothing, or prints more than 64 KiB.
Result<LockedString> fetch(const std::vector<std::string>& argv, const FetchOptions& options);

}  // namespace sbx::secret
