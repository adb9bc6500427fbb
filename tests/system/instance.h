// Drives the `sbx` beside this test program against the system tests' instance ($SBX_HOME).
#pragma once

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
// The command line of `sbx` with these arguments.
std::vector<std::string> command_line(const std::vector<std::string>& arguments);
// Runs `sbx` to its end.
Outcome sbx(const std::vector<std::string>& arguments, const std::string& input = {});

// Waits until `condition` holds, asking every 50 ms; false after `seconds`.
template <typename Condition>
bool eventually(Condition condition, int seconds = 20);

// A sandbox with a workspace of its own; both go with it, whatever the test did.
class Sandbox {
 public:
  // Extra arguments of `sbx create` go before the workspace.
  explicit Sandbox(const std::vector<std::string>& extra = {}, const std::string& workspace_suffix = {});
  ~Sandbox();
  Sandbox(const Sandbox&) = delete;
  Sandbox& operator=(const Sandbox&) = delete;

  const std::string& name() const { return name_; }
  const std::filesystem::path& workspace() const { return folder_.path(); }
  Outcome exec(const std::vector<std::string>& command, const std::string& input = {}) const;
  Outcome shell(const std::string& script) const { return exec({"bash", "-c", script}); }
  Outcome root(const std::string& script) const;
  nlohmann::json listed() const;  // its entry of `sbx ls --json`, or null
  nlohmann::json inspected() const;

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

}  // namespace sbx::test
