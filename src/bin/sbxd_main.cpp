// sbxd [--app-name NAME] [--policy PRESET] [--ready-fd N]: the daemon. One per HOME (flock on HOME/sbxd.lock; a second
// one exits with 3). Logs to stderr, or to HOME/log/sbxd.log when started with --ready-fd, where it writes one byte
// once it can be reached.
#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/signal_set.hpp>
#include <cstring>
#include <iostream>

#include "api/http_server.h"
#include "base/file.h"
#include "sandbox/daemon_log.h"
#include "store/clock.h"

namespace {

namespace asio = boost::asio;
using sbx::Result;

struct Options {
  std::string app_name;
  std::string policy;  // preset of a new installation
  int ready_fd = -1;
};

constexpr int kAlreadyRunning = 3;

Result<Options> parse(int argc, char** argv) {
  Options options;
  for (int i = 1; i < argc; i += 2) {
    const std::string name = argv[i];
    if (i + 1 >= argc) return sbx::fail(sbx::ErrorCode::kInvalid, name + " needs a value");
    if (name == "--app-name")
      options.app_name = argv[i + 1];
    else if (name == "--ready-fd")
      options.ready_fd = std::atoi(argv[i + 1]);
    else if (name == "--policy")
      options.policy = argv[i + 1];
    else
      return sbx::fail(sbx::ErrorCode::kInvalid, "unknown option " + name);
  }
  return options;
}

sbx::sandbox::Awaitable<void> start(sbx::api::Daemon& daemon, asio::local::stream_protocol::acceptor& listener,
                                    int ready_fd) {
  co_await daemon.lifecycle.adopt();
  const auto executor = listener.get_executor();
  asio::co_spawn(executor, sbx::api::serve(std::move(listener), daemon), asio::detached);
  asio::co_spawn(executor, daemon.lifecycle.watch_idle(), asio::detached);
  asio::co_spawn(executor, daemon.lifecycle.keep_spares(), asio::detached);
  auto in_use = [&daemon] { return daemon.lifecycle.any_running(); };
  asio::co_spawn(executor, daemon.lifecycle.secrets().keep_fresh(std::move(in_use)), asio::detached);
  if (ready_fd >= 0) {
    (void)sbx::write_all(ready_fd, "1");
    ::close(ready_fd);
  }
}

Result<void> choose_policy(sbx::policy::PolicyStore& policy, const std::string& wanted) {
  const auto now = SBX_TRY(policy.preset(), "reading the policy");
  if (!now) return policy.initialise(wanted);
  if (*now == wanted) return {};
  return sbx::fail(sbx::ErrorCode::kInvalid, "the network policy is initialised already (" + *now + "), not " + wanted +
                                                 "; 'sbx policy reset' removes it with all its rules");
}

Result<void> run(const Options& options) {
  const auto paths = SBX_TRY(sbx::store::Paths::from_environment(options.app_name), "finding the state folder");
  SBX_CHECK(paths.make(), "making the state folders");
  const auto lock = SBX_TRY(sbx::store::lock_file(paths.daemon_lock(), {.wait = false}), "taking the daemon's lock");
  if (options.ready_fd >= 0) {
    auto log = SBX_TRY(sbx::open_file(paths.daemon_log(), O_WRONLY | O_CREAT | O_APPEND, 0600), "opening the log");
    ::dup2(log.get(), STDERR_FILENO);
    ::fcntl(options.ready_fd, F_SETFD, FD_CLOEXEC);
  }
  SBX_CHECK(sbx::write_file_atomically(paths.home / "sbxd.pid", std::to_string(::getpid()) + "\n"), "writing sbxd.pid");
  auto database = SBX_TRY(sbx::store::Database::open(paths.database()), "opening the store");

  asio::io_context loop(1);
  const auto programs = std::filesystem::read_symlink("/proc/self/exe").parent_path();
  sbx::sandbox::Lifecycle lifecycle(loop, paths, database, programs);
  if (!options.policy.empty()) SBX_CHECK(choose_policy(lifecycle.policy(), options.policy), "choosing the policy");
  sbx::api::Daemon daemon{lifecycle, sbx::store::now_ms(), programs, {}};
  // Posted late enough for the answer to `daemon stop` to go out first.
  asio::steady_timer farewell(loop);
  daemon.stop = [&] {
    farewell.expires_after(std::chrono::milliseconds(50));
    farewell.async_wait([&](boost::system::error_code) { loop.stop(); });
  };
  asio::signal_set signals(loop, SIGINT, SIGTERM);
  signals.async_wait([&](boost::system::error_code, int) { loop.stop(); });

  std::error_code ignored;
  std::filesystem::remove(paths.daemon_socket(), ignored);  // ours: we hold the lock
  const mode_t mask = ::umask(0177);
  asio::local::stream_protocol::acceptor listener(
      loop, asio::local::stream_protocol::endpoint(paths.daemon_socket().native()));
  ::umask(mask);
  sbx::sandbox::log_line(
      {{"message", "sbxd started"}, {"version", SBX_VERSION}, {"pid", ::getpid()}, {"home", paths.home.native()}});
  asio::co_spawn(loop, start(daemon, listener, options.ready_fd), asio::detached);
  loop.run();
  std::filesystem::remove(paths.daemon_socket(), ignored);
  sbx::sandbox::log_line({{"message", "sbxd ended"}});
  return {};
}

}  // namespace

int main(int argc, char** argv) {
  ::signal(SIGPIPE, SIG_IGN);
  ::umask(0077);
  // Secrets: no core dump, and no look into our memory by other processes of this user.
  ::prctl(PR_SET_DUMPABLE, 0);
  const auto options = parse(argc, argv);
  Result<void> result;
  try {
    result = options ? run(*options) : Result<void>(std::unexpected(options.error()));
  } catch (const std::exception& error) {  // of a library, while starting
    result = sbx::fail(sbx::ErrorCode::kInternal, error.what());
  }
  if (result) return 0;
  std::cerr << "sbxd: " << result.error().describe() << "\n";
  return result.error().code == sbx::ErrorCode::kConflict ? kAlreadyRunning : 1;
}
