// sbx-gateway: the way to the network of one sandbox.
//
//   sbx-gateway --port-fd N --control-fd N [--agent-fd N] [--ca-bundle PATH] [--resync-ms N] [--recorded-ms N]
//
// --port-fd is the connected network port, --control-fd a listening unix socket for sbxd, --agent-fd the socket that
// gives connections to the host's SSH agent (without it none is forwarded), --recorded-ms how long a signature of that
// agent waits for its line to be recorded. Nothing is answered before
// the first configuration has come. The process is meant to be started in a jail that has the host's network and, read
// only, resolv.conf, hosts, nsswitch.conf and the bundle of certificate authorities. It exits with 0 when the port
// closes.
#include <fcntl.h>
#include <getopt.h>
#include <netdb.h>
#include <signal.h>
#include <sys/resource.h>

#include <algorithm>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <charconv>
#include <cstdio>

#include "base/sanitizers.h"
#include "gateway/control_server.h"
#include "gateway/guest_port.h"
#include "gateway/lockdown.h"

namespace sbx::gateway {
namespace {

namespace asio = boost::asio;
using UnixSocket = asio::local::stream_protocol;

struct Options {
  int port_fd = -1;
  int control_fd = -1;
  int agent_fd = -1;
  std::string ca_bundle = "/etc/ssl/certs/ca-certificates.crt";
  std::chrono::milliseconds resync{60'000};
  // A daemon that is not there (it may be starting anew) records nothing.
  std::chrono::milliseconds recorded{30'000};
};

Result<int> parse_number(std::string_view name, std::string_view text) {
  int value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value < 0) {
    return fail(ErrorCode::kInvalid, "--" + std::string(name) + " takes a number, not " + std::string(text));
  }
  return value;
}

Result<Options> parse_options(int argc, char** argv) {
  Options options;
  static const option kOptions[] = {{"port-fd", required_argument, nullptr, 'p'},
                                    {"control-fd", required_argument, nullptr, 'c'},
                                    {"agent-fd", required_argument, nullptr, 'a'},
                                    {"ca-bundle", required_argument, nullptr, 'b'},
                                    {"resync-ms", required_argument, nullptr, 'r'},
                                    {"recorded-ms", required_argument, nullptr, 's'},
                                    {nullptr, 0, nullptr, 0}};
  for (int letter = 0; (letter = ::getopt_long(argc, argv, "", kOptions, nullptr)) != -1;) {
    if (letter == 'p') {
      options.port_fd = SBX_TRY(parse_number("port-fd", optarg), "reading the command line");
    } else if (letter == 'c') {
      options.control_fd = SBX_TRY(parse_number("control-fd", optarg), "reading the command line");
    } else if (letter == 'a') {
      options.agent_fd = SBX_TRY(parse_number("agent-fd", optarg), "reading the command line");
    } else if (letter == 'b') {
      options.ca_bundle = optarg;
    } else if (letter == 'r') {
      options.resync =
          std::chrono::milliseconds(SBX_TRY(parse_number("resync-ms", optarg), "reading the command line"));
    } else if (letter == 's') {
      options.recorded =
          std::chrono::milliseconds(SBX_TRY(parse_number("recorded-ms", optarg), "reading the command line"));
    } else {
      return fail(ErrorCode::kInvalid, "unknown option; see the comment in src/gateway/main.cpp");
    }
  }
  if (optind != argc) return fail(ErrorCode::kInvalid, std::string("unexpected argument ") + argv[optind]);
  if (options.port_fd < 0 || options.control_fd < 0) {
    return fail(ErrorCode::kInvalid, "pass both --port-fd and --control-fd");
  }
  return options;
}

// A guest may open many connections; and what they hold must not take the host's memory.
void set_limits() {
  rlimit files{};
  ::getrlimit(RLIMIT_NOFILE, &files);
  files.rlim_cur = std::min<rlim_t>(files.rlim_max, 1U << 16U);
  ::setrlimit(RLIMIT_NOFILE, &files);
#if !SBX_ADDRESS_SANITIZER && !SBX_THREAD_SANITIZER
  const rlimit memory{1ULL << 30U, 1ULL << 30U};
  ::setrlimit(RLIMIT_DATA, &memory);
#endif
}

Result<void> run(int argc, char** argv) {
  const auto options = SBX_TRY(parse_options(argc, argv), "starting");
  set_limits();
  UniqueFd agent(options.agent_fd);
  for (const int fd : {options.port_fd, options.control_fd, options.agent_fd}) {
    if (fd >= 0) ::fcntl(fd, F_SETFD, FD_CLOEXEC);
  }
  ControlFacts facts;
  facts.secrets_locked = SBX_TRY(make_secure_heap(), "starting");
  auto tls = SBX_TRY(UpstreamTls::make(options.ca_bundle), "starting");
  // Loads the modules that nsswitch.conf names while files may still be looked for.
  addrinfo* warm = nullptr;
  if (::getaddrinfo("localhost", nullptr, nullptr, &warm) == 0) ::freeaddrinfo(warm);

  asio::io_context io(1);
  Gateway gateway(io.get_executor(), std::move(tls));
  SshAgent ssh_agent(io.get_executor(), std::move(agent), gateway.log(), options.recorded);
  asio::posix::stream_descriptor port(io, options.port_fd);
  UnixSocket::acceptor control(io, UnixSocket(), options.control_fd);
  SBX_CHECK(lock_down(), "starting");
  asio::co_spawn(io, serve_control(gateway, std::move(control), facts), asio::detached);
  Result<void> ended;
  asio::co_spawn(io, serve_guest(gateway, ssh_agent, std::move(port), options.resync),
                 [&](std::exception_ptr, Result<void> result) {
                   ended = std::move(result);
                   io.stop();
                 });
  io.run();
  if (!ended) std::fprintf(stderr, "sbx-gateway: %s\n", ended.error().describe().c_str());
  std::fflush(nullptr);
  // Threads may be waiting for a name server, and connections for anything.
  std::_Exit(ended ? 0 : 1);
}

}  // namespace
}  // namespace sbx::gateway

int main(int argc, char** argv) {
  ::signal(SIGPIPE, SIG_IGN);
  if (const auto result = sbx::gateway::run(argc, argv); !result) {
    std::fprintf(stderr, "sbx-gateway: %s\n", result.error().describe().c_str());
    return 1;
  }
  return 0;
}
