#include "instance.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>

namespace sbx::test {

std::filesystem::path home() {
  const char* value = std::getenv("SBX_HOME");
  EXPECT_NE(value, nullptr) << "SBX_HOME is not set; run the system tests through ctest";
  return value != nullptr ? value : "/nonexistent";
}

std::filesystem::path programs() { return std::filesystem::read_symlink("/proc/self/exe").parent_path(); }

bool full() {
  const char* value = std::getenv("SBX_FULL");
  return value != nullptr && std::string_view(value) == "1";
}

std::vector<std::string> command_line(const std::vector<std::string>& arguments) {
  std::vector<std::string> argv = {programs() / "sbx"};
  argv.insert(argv.end(), arguments.begin(), arguments.end());
  return argv;
}

Outcome run(const Command& command, const std::string& input) {
  auto folder = TemporaryFolder::make("sbx-system").value();
  if (!write_file_atomically(folder.path() / "in", input)) ADD_FAILURE() << "cannot write the input";
  auto in = open_file(folder.path() / "in", O_RDONLY).value();
  auto out = open_file(folder.path() / "out", O_CREAT | O_RDWR).value();
  auto err = open_file(folder.path() / "err", O_CREAT | O_RDWR).value();
  auto child = Command(command).stdin_from(in.get()).stdout_to(out.get()).stderr_to(err.get()).start();
  if (!child) return {-1, "", child.error().describe()};
  const auto status = child->wait().value();
  return {status.signal != 0 ? 128 + status.signal : status.code, read_file(folder.path() / "out", 1U << 30U).value(),
          read_file(folder.path() / "err").value()};
}

Outcome sbx(const std::vector<std::string>& arguments, const std::string& input) {
  return run(Command(command_line(arguments)), input);
}

nlohmann::json sbx_json(const std::vector<std::string>& arguments) {
  const auto outcome = sbx(arguments);
  EXPECT_EQ(outcome.status, 0) << outcome.err;
  auto document = nlohmann::json::parse(outcome.out, nullptr, false);
  EXPECT_FALSE(document.is_discarded()) << outcome.out;
  return document;
}

long memory_kib(int pid, const std::string& what) {
  std::ifstream lines("/proc/" + std::to_string(pid) + "/status");
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with(what + ":")) return std::strtol(line.c_str() + what.size() + 1, nullptr, 10);
  }
  return -1;
}

void wait_a_little() { ::poll(nullptr, 0, 50); }

Sandbox::Sandbox(const std::vector<std::string>& extra, const std::string& workspace_suffix,
                 const std::vector<std::string>& more_workspaces)
    : name_([] {
        static int next = 0;
        return "t" + std::to_string(::getpid()) + "-" + std::to_string(next++);
      }()),
      folder_(TemporaryFolder::make("sbx-workspace").value()) {
  std::vector<std::string> arguments = {"create", "--name", name_};
  arguments.insert(arguments.end(), extra.begin(), extra.end());
  arguments.insert(arguments.end(), {"shell", workspace().string() + workspace_suffix});
  arguments.insert(arguments.end(), more_workspaces.begin(), more_workspaces.end());
  const auto created = sbx(arguments);
  EXPECT_EQ(created.status, 0) << created.out << created.err;
}

Sandbox::~Sandbox() { (void)sbx({"rm", "--force", name_}); }

Outcome Sandbox::exec(const std::vector<std::string>& command, const std::string& input) const {
  std::vector<std::string> arguments = {"exec", name_};
  arguments.insert(arguments.end(), command.begin(), command.end());
  return sbx(arguments, input);
}

Outcome Sandbox::root(const std::string& script) const {
  return sbx({"exec", "-u", "root", name_, "bash", "-c", script});
}

std::string Sandbox::background(const std::string& script) const {
  const auto started = sbx({"exec", "-d", name_, "bash", "-c", script});
  EXPECT_EQ(started.status, 0) << started.err;
  return started.out.substr(0, started.out.find('\n'));
}

nlohmann::json Sandbox::listed() const {
  const auto answer = nlohmann::json::parse(sbx({"ls", "--json"}).out, nullptr, false);
  if (!answer.is_object()) return nullptr;
  for (const auto& entry : answer["sandboxes"]) {
    if (entry["name"] == name_) return entry;
  }
  return nullptr;
}

nlohmann::json Sandbox::inspected() const {
  return nlohmann::json::parse(sbx({"inspect", name_, "--json"}).out, nullptr, false);
}

std::string Sandbox::status() const {
  const auto entry = listed();
  return entry.is_object() ? entry.value("status", "") : "";
}

}  // namespace sbx::test
