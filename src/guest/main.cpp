// sbx-guest: PID 1 of a sandbox, from the initramfs to power-off.
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <cstdio>
#include <exception>
#include <sstream>

#include "base/file.h"
#include "guest/boot.h"
#include "guest/console.h"
#include "guest/container_runtime.h"
#include "guest/control_server.h"
#include "guest/guest.h"
#include "guest/port_sessions.h"
#include "guest/power.h"
#include "guest/spawn.h"
#include "guest/virtio_port.h"

namespace {

using namespace std::chrono_literals;
using namespace sbx;
using namespace sbx::guest;

// The kernel announces the ports some time after the device.
Awaitable<void> serve_control_port(Guest& guest) {
  Result<std::string> path = find_port("sbx.control");
  while (!path) {
    co_await sleep_for(guest.executor, 10ms);
    path = find_port("sbx.control");
  }
  auto port = open_file(*path, O_RDWR | O_NONBLOCK);
  while (!port) {
    console_line("control port: " + port.error().describe());
    co_await sleep_for(guest.executor, 1000ms);
    port = open_file(*path, O_RDWR | O_NONBLOCK);
  }
  guest.boot_ms = boot_milliseconds();
  console_line("control port open");
  PortSessions sessions(guest.executor, *std::move(port), PortPeer::kClient, [&guest](PortSessions::Descriptor near) {
    const auto handler = [&guest](std::shared_ptr<wire::Http2Stream> stream) {
      return handle_control_request(guest, std::move(stream));
    };
    wire::Http2Limits limits;
    limits.extended_connect = true;  // CONNECT-UDP
    return wire::Http2Session::server(std::move(near), handler, limits);
  });
  co_await sessions.run();
}

Awaitable<void> load_modules(Guest& guest) {
  const auto list = read_file("/etc/sbx-modules", 64U << 10U);
  if (!list) co_return;
  SpawnPlan plan;
  plan.argv = {"modprobe", "-a"};
  std::istringstream words(*list);
  for (std::string word; words >> word;) plan.argv.push_back(word);
  plan.candidates = {"/sbin/modprobe", "/usr/sbin/modprobe"};
  const auto spawned = spawn(plan);
  if (!spawned) co_return;
  const auto child = guest.reaper.adopt(spawned->pid);
  co_await child->ended.wait();
  if (child->wait_status != 0) console_line("some module of /etc/sbx-modules could not be loaded");
}

Awaitable<void> start_services(Guest& guest, bool with_docker) {
  if (with_docker) {
    guest.docker.listen();
  } else {
    guest.docker.disable();
  }
  co_await load_modules(guest);
  co_await guest.network.set_up();
  if (with_docker) co_await guest.docker.run();
}

void run(const std::string& command_line) {
  boost::asio::io_context loop(1);
  Guest guest(loop.get_executor());
  if (const auto prepared = guest.cgroups.prepare(); !prepared) console_line(prepared.error().describe());
  const bool with_docker = kernel_argument(command_line, "sbx.docker") != "0";
  const auto report_end = [](const char* what) {
    return [what](std::exception_ptr error) {
      if (!error) return;
      try {
        std::rethrow_exception(error);
      } catch (const std::exception& caught) {
        console_line(std::string(what) + ": " + caught.what());
      }
    };
  };
  boost::asio::co_spawn(loop, guest.reaper.run([&guest] { guest.cgroups.collect(); }), report_end("reaper"));
  boost::asio::co_spawn(loop, serve_control_port(guest), report_end("control port"));
  boost::asio::co_spawn(loop, guest.network.serve(), report_end("network port"));
  boost::asio::co_spawn(loop, start_services(guest, with_docker), report_end("services"));
  loop.run();
}

}  // namespace

int main(int, char** argv) {
  if (argv[0] != nullptr && ::getpid() != 1 && is_container_runtime(argv[0])) return run_container_runtime(argv);
  if (::getpid() != 1) {
    std::fputs("sbx-guest is PID 1 of a sandbox's VM; there is nothing to run here.\n", stderr);
    return 64;
  }
  ::signal(SIGPIPE, SIG_IGN);
  std::string command_line;
  if (const auto entered = enter_root_file_system(command_line); !entered) {
    console_line(entered.error().describe());
    power_off();
  }
  prepare_system();
  try {
    run(command_line);
  } catch (const std::exception& error) {
    console_line(std::string("fatal: ") + error.what());
  }
  power_off();
}
