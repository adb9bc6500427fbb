// Drives the `sbx` beside this test program against the system tests' instance ($SBX_HOME).
#pragma once

#include <chrono>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/command.h"
#include "base/file.h"

namespace sbx::test {

struct Outcome {
  int status = -1;  // exit status; 128 + signal
  std::string out;
  std::string err;
};

std::filesystem::path home();
std::filesystem::path programs();  // the folder of `sbx` and of this program
bool full();                       // SBX_FULL=1: the long variants too
// The command line of `sbx` with these arguments.
std::vector<std::string> command_line(const std::vector<std::string>& arguments);
// Runs a program, or `sbx`, to its end.
Outcome run(const Command& command, const std::string& input = {});
Outcome sbx(const std::vector<std::string>& arguments, const std::string& input = {});
// The JSON document on stdout of `sbx`; discarded (and a failure) if there is anything else.
nlohmann::json sbx_json(const std::vector<std::string>& arguments);

// Waits until `condition` holds, asking every 50 ms; false after `seconds`.
template <typename Condition>
bool eventually(Condition condition, int seconds = 60);

// Whether `condition` holds all along, for so long by the clock.
template <typename Condition>
bool stays(Condition condition, std::chrono::milliseconds time);

// "VmRSS" and the like of a process, in KiB; -1 if it is gone.
long memory_kib(int pid, const std::string& what);

// A sandbox with a workspace of its own; both go with it, whatever the test did.
class Sandbox {
 public:
  // Extra arguments of `sbx create` go before the workspace, more workspaces after it.
  explicit Sandbox(const std::vector<std::string>& extra = {}, const std::string& workspace_suffix = {},
                   const std::vector<std::string>& more_workspaces = {});
  ~Sandbox();
  Sandbox(const Sandbox&) = delete;
  Sandbox& operator=(const Sandbox&) = delete;

  const std::string& name() const { return name_; }
  const std::filesystem::path& workspace() const { return folder_.path(); }
  Outcome exec(const std::vector<std::string>& command, const std::string& input = {}) const;
  Outcome shell(const std::string& script) const { return exec({"bash", "-c", script}); }
  Outcome root(const std::string& script) const;
  // `sbx exec -d` of a shell script; its id.
  std::string background(const std::string& script) const;
  nlohmann::json listed() const;  // its entry of `sbx ls --json`, or null
  nlohmann::json inspected() const;
  std::string status() const;  // running, stopped, or ""

 private:
  std::string name_;
  TemporaryFolder folder_;
};

void wait_a_little();

template <typename Condition>
bool eventually(Condition condition, int seconds) {
  for (int i = 0; i < seconds * 20; ++i) {
    if (condition()) return true;
    wait_a_little();
  }
  return condition();
}

template <typename Condition>
bool stays(Condition condition, std::chrono::milliseconds time) {
  const auto until = std::chrono::steady_clock::now() + time;
  while (std::chrono::steady_clock::now() < until) {
    if (!condition()) return false;
    wait_a_little();
  }
  return true;
}

}  // namespace sbx::test
