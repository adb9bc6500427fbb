// sbx-keeper --spec-fd N: runs one sandbox, or builds one template (docs/development/protocols.md, "Keeper launch").
// What it runs is the keeper's supervisor; the worker is a program of its own (worker_main.cpp).
#include <fcntl.h>
#include <signal.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>
#include <sys/stat.h>
#include <unistd.h>

#include <charconv>
#include <cstring>
#include <iostream>

#include "base/file.h"
#include "keeper/supervisor.h"

namespace {

using sbx::Result;

Result<sbx::keeper::LaunchSpec> read_spec(int argc, char** argv) {
  int fd = -1;
  if (argc != 3 || std::strcmp(argv[1], "--spec-fd") != 0 ||
      std::from_chars(argv[2], argv[2] + std::strlen(argv[2]), fd).ec != std::errc{} || fd < 0) {
    return sbx::fail(sbx::ErrorCode::kInvalid, "usage: sbx-keeper --spec-fd N (it is started by sbxd)");
  }
  const sbx::UniqueFd owned(fd);
  const auto text =
      SBX_TRY(sbx::read_file("/proc/self/fd/" + std::to_string(fd), 4U << 20U), "reading the launch spec");
  return sbx::keeper::parse_launch_spec(text);
}

// For the daemon that finds us when its predecessor was killed before it knew our pid.
void leave_pid(const sbx::keeper::LaunchSpec& spec) {
  const auto file = sbx::open_file(spec.runtime_folder / "keeper.lock", O_WRONLY);
  if (file) (void)sbx::write_all(file->get(), std::to_string(::getpid()));
}

}  // namespace

int main(int argc, char** argv) {
  ::signal(SIGPIPE, SIG_IGN);
  ::umask(077);
  spdlog::set_default_logger(spdlog::stderr_logger_mt("keeper"));
  auto spec = read_spec(argc, argv);
  if (!spec) {
    sbx::keeper::report_line({{"error", {{"code", "invalid"}, {"message", spec.error().describe()}}}});
    std::cerr << spec.error().describe() << "\n";
    return 2;
  }
  leave_pid(*spec);
  return sbx::keeper::Supervisor(std::move(*spec)).run();
}
