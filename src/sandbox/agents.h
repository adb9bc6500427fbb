// The agents that `create` and `run` know by name, and what `run` starts for each.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace sbx::sandbox {

struct Agent {
  std::string_view name;
  std::vector<std::string> entrypoint;  // always
  std::vector<std::string> arguments;   // replaced when the user's first argument is a bare word
};

std::span<const Agent> agents();
// nullptr for a name that is not an agent.
const Agent* find_agent(std::string_view name);
// What `run NAME -- extra...` starts: extra is appended if it begins with '-', else it replaces the default arguments.
std::vector<std::string> agent_command(const Agent& agent, const std::vector<std::string>& extra);

}  // namespace sbx::sandbox
