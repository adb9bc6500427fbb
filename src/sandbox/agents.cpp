#include "sandbox/agents.h"

#include <algorithm>

namespace sbx::sandbox {

std::span<const Agent> agents() {
  static const std::vector<Agent> kAgents = {
      {"claude", {"claude"}, {"--dangerously-skip-permissions"}},
      {"codex", {"codex"}, {"--dangerously-bypass-approvals-and-sandbox"}},
      {"copilot", {"copilot"}, {"--yolo"}},
      {"cursor", {"cursor-agent"}, {}},
      {"devin", {"devin"}, {}},
      {"docker-agent", {"docker-agent", "run"}, {"--yolo"}},
      {"droid", {"droid"}, {}},
      {"gemini", {"gemini"}, {"--yolo"}},
      {"kiro", {"kiro-cli"}, {}},
      {"opencode", {"opencode"}, {}},
      {"shell", {"bash"}, {"-l"}},
  };
  return kAgents;
}

const Agent* find_agent(std::string_view name) {
  const auto all = agents();
  const auto found = std::ranges::find(all, name, &Agent::name);
  return found == all.end() ? nullptr : &*found;
}

std::vector<std::string> agent_command(const Agent& agent, const std::vector<std::string>& extra) {
  std::vector<std::string> command = agent.entrypoint;
  if (extra.empty() || extra.front().starts_with('-')) {
    command.insert(command.end(), agent.arguments.begin(), agent.arguments.end());
  }
  command.insert(command.end(), extra.begin(), extra.end());
  return command;
}

}  // namespace sbx::sandbox
