// sbx-keeper-worker SUPERVISOR SPEC QMP LISTENER STATE: the half of a keeper that reads what QEMU and the guest write.
// The arguments are descriptors (worker_jail.h); it is started by sbx-keeper in a jail, and locks itself down.
#include <signal.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <array>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <charconv>
#include <cstdio>
#include <cstring>

#include "base/sanitizers.h"
#include "keeper/keeper.h"
#include "keeper/template_builder.h"
#include "keeper/worker_lockdown.h"
#include "keeper/worker_spec.h"

#if SBX_ADDRESS_SANITIZER
// The leak check traces its own process, which the jail does not allow.
extern "C" const char* __asan_default_options() { return "detect_leaks=0"; }
#endif

namespace {

namespace asio = boost::asio;
using sbx::Result;
using sbx::UniqueFd;
using namespace sbx::keeper;

struct Inherited {
  UniqueFd supervisor;
  UniqueFd spec;
  UniqueFd qmp;
  UniqueFd listener;
  UniqueFd state;
};

Result<Inherited> inherited(int argc, char** argv) {
  Inherited fds;
  const std::array slots = {&fds.supervisor, &fds.spec, &fds.qmp, &fds.listener, &fds.state};
  if (argc != 1 + static_cast<int>(slots.size())) {
    return sbx::fail(sbx::ErrorCode::kInvalid, "sbx-keeper-worker is started by sbx-keeper");
  }
  for (std::size_t i = 0; i < slots.size(); ++i) {
    const char* text = argv[1 + i];
    int fd = -1;
    if (std::from_chars(text, text + std::strlen(text), fd).ec != std::errc{}) {
      return sbx::fail(sbx::ErrorCode::kInvalid, "not a descriptor: " + std::string(text));
    }
    slots[i]->reset(fd);
  }
  return fds;
}

asio::awaitable<void> build(asio::io_context& io, WorkerSpec spec, Inherited fds, SupervisorClient& supervisor) {
  auto built = co_await build_template(std::move(spec), std::move(fds.qmp), std::move(fds.state), supervisor);
  if (built) {
    supervisor.tell(Request::kReady, static_cast<std::int32_t>(*built));
    supervisor.tell(Request::kLeave);
  } else {
    supervisor.tell(Request::kFailed, 1 + static_cast<int>(built.error().code), built.error().describe());
  }
  io.stop();
}

Result<void> run(int argc, char** argv) {
  auto fds = SBX_TRY(inherited(argc, argv), "starting");
  auto spec = SBX_TRY(read_worker_spec(fds.spec.get()), "starting");
  fds.spec.reset();
  SBX_CHECK(lock_worker_down(), "starting");
  asio::io_context io(1);
  SupervisorClient supervisor(io.get_executor(), std::move(fds.supervisor));
  asio::co_spawn(io, supervisor.run(), [&](std::exception_ptr) { io.stop(); });
  if (spec.mode == LaunchMode::kTemplate) {
    asio::co_spawn(io, build(io, std::move(spec), std::move(fds), supervisor), asio::detached);
    io.run();
    return {};
  }
  Keeper keeper(io, std::move(spec), supervisor, std::move(fds.listener));
  asio::co_spawn(io, keeper.run(std::move(fds.qmp), std::move(fds.state)), asio::detached);
  io.run();
  return {};
}

}  // namespace

int main(int argc, char** argv) {
  ::signal(SIGPIPE, SIG_IGN);
  spdlog::set_default_logger(spdlog::stderr_logger_mt("keeper-worker"));
  if (const auto result = run(argc, argv); !result) {
    std::fprintf(stderr, "sbx-keeper-worker: %s\n", result.error().describe().c_str());
    return 1;
  }
  return 0;
}
