#include "keeper/worker_jail.h"

#include "vm/jail.h"

namespace sbx::keeper {

Command worker_command(const std::filesystem::path& program, const WorkerFds& fds, std::optional<unsigned> uid) {
  vm::JailSpec jail;
  jail.uid = uid;
  jail.binds.push_back({program, "/sbx-keeper-worker", vm::BindMode::kReadOnly});
  jail.argv = {"/sbx-keeper-worker"};
  for (const int fd : {fds.supervisor, fds.spec, fds.qmp, fds.listener, fds.state}) {
    jail.argv.push_back(std::to_string(fd));
  }
  Command command = vm::jailed(jail);
  for (const int fd : {fds.supervisor, fds.spec, fds.qmp, fds.listener, fds.state}) {
    if (fd >= 0) command.keep_fd(fd);
  }
  return command;
}

}  // namespace sbx::keeper
