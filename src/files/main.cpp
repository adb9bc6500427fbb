// sbx-files: serves workspaces to a sandbox over its files port.
//
//   sbx-files --port-fd N | --port-socket PATH  --workspace INDEX:PATH[:ro] [--opened-fd N] ...  [--control-fd N]
//   [--cache-ms N]
//             [--resync-ms N] [--protect PATTERN ...] [--hide PATTERN ...] [--deny] [--journal-fd N] [--before-fd N]
//             [--late-folder PATH]
//
// --opened-fd N after a --workspace: what it has to be. It is compared and closed; without it PATH is taken as it is.
// --port-fd is a connected socket, --port-socket the path of one that listens. The process is meant to be started in a
// jail that holds the workspaces' mounts (nosuid, nodev, read-only where :ro) and /proc. It exits with 0 when the port
// closes.
#include <fcntl.h>
#include <getopt.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <cerrno>
#include <charconv>
#include <csignal>
#include <cstdio>

#include "base/file.h"
#include "files/dispatcher.h"
#include "files/lockdown.h"
#include "files/session.h"
#include "wire/resync.h"

namespace sbx::files {
namespace {

struct Options {
  int port_fd = -1;
  int control_fd = -1;  // see serve()
  std::string port_socket;
  std::string late_folder;  // where workspaces may be mounted while it runs, as PATH/INDEX
  std::vector<WorkspaceSpec> workspaces;
  // As long as a change on the host that makes no event (a store through a mapping) may stay unseen.
  int cache_ms = 600'000;
  int resync_ms = 60'000;
  std::vector<std::string> protect = default_protected();
  std::vector<std::string> hide;
  bool deny = false;
  int journal_fd = -1;  // see Journal
  int before_fd = -1;
};

Result<int> parse_number(const char* name, std::string_view text) {
  int value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value < 0) {
    return fail(ErrorCode::kInvalid, std::string("--") + name + " needs a number, not \"" + std::string(text) + "\"");
  }
  return value;
}

Result<Options> parse_options(int argc, char** argv) {
  static const std::array<option, 14> kOptions{{{"port-fd", required_argument, nullptr, 'f'},
                                                {"control-fd", required_argument, nullptr, 'b'},
                                                {"port-socket", required_argument, nullptr, 's'},
                                                {"workspace", required_argument, nullptr, 'w'},
                                                {"opened-fd", required_argument, nullptr, 'i'},
                                                {"cache-ms", required_argument, nullptr, 'c'},
                                                {"resync-ms", required_argument, nullptr, 'r'},
                                                {"late-folder", required_argument, nullptr, 'l'},
                                                {"protect", required_argument, nullptr, 'p'},
                                                {"hide", required_argument, nullptr, 'h'},
                                                {"deny", no_argument, nullptr, 'd'},
                                                {"journal-fd", required_argument, nullptr, 'j'},
                                                {"before-fd", required_argument, nullptr, 'o'},
                                                {nullptr, 0, nullptr, 0}}};
  Options options;
  for (int letter = 0; (letter = ::getopt_long(argc, argv, "", kOptions.data(), nullptr)) != -1;) {
    if (letter == 'f') {
      options.port_fd = SBX_TRY(parse_number("port-fd", optarg), "reading the command line");
    } else if (letter == 'b') {
      options.control_fd = SBX_TRY(parse_number("control-fd", optarg), "reading the command line");
    } else if (letter == 'l') {
      options.late_folder = optarg;
    } else if (letter == 's') {
      options.port_socket = optarg;
    } else if (letter == 'w') {
      options.workspaces.push_back(SBX_TRY(parse_workspace(optarg), "reading the command line"));
    } else if (letter == 'i') {
      const int fd = SBX_TRY(parse_number("opened-fd", optarg), "reading the command line");
      if (options.workspaces.empty()) return fail(ErrorCode::kInvalid, "--opened-fd comes after its --workspace");
      options.workspaces.back().opened = std::make_shared<const UniqueFd>(fd);
    } else if (letter == 'c') {
      options.cache_ms = SBX_TRY(parse_number("cache-ms", optarg), "reading the command line");
    } else if (letter == 'r') {
      options.resync_ms = SBX_TRY(parse_number("resync-ms", optarg), "reading the command line");
    } else if (letter == 'p') {
      options.protect.emplace_back(optarg);
    } else if (letter == 'h') {
      options.hide.emplace_back(optarg);
    } else if (letter == 'd') {
      options.deny = true;
    } else if (letter == 'j') {
      options.journal_fd = SBX_TRY(parse_number("journal-fd", optarg), "reading the command line");
    } else if (letter == 'o') {
      options.before_fd = SBX_TRY(parse_number("before-fd", optarg), "reading the command line");
    } else {
      return fail(ErrorCode::kInvalid, "unknown option; see the comment in src/files/main.cpp");
    }
  }
  if (optind != argc) return fail(ErrorCode::kInvalid, std::string("unexpected argument ") + argv[optind]);
  if ((options.port_fd >= 0) == !options.port_socket.empty()) {
    return fail(ErrorCode::kInvalid, "pass one of --port-fd and --port-socket");
  }
  return options;
}

Result<UniqueFd> connect_port(const Options& options) {
  if (options.port_fd >= 0) {
    ::fcntl(options.port_fd, F_SETFD, FD_CLOEXEC);
    return UniqueFd(options.port_fd);
  }
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (options.port_socket.size() >= sizeof(address.sun_path))
    return fail(ErrorCode::kInvalid, "--port-socket is too long");
  options.port_socket.copy(address.sun_path, options.port_socket.size());
  UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!fd.valid()) return fail_errno("socket", errno);
  if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) {
    return fail_errno("connecting to " + options.port_socket, errno);
  }
  return fd;
}

// As many descriptors as the system lets us have; what the dispatcher may use of them.
Dispatcher::Limits raise_limits() {
  rlimit limit{};
  ::getrlimit(RLIMIT_NOFILE, &limit);
  limit.rlim_cur = std::min<rlim_t>(limit.rlim_max, 1U << 17U);
  ::setrlimit(RLIMIT_NOFILE, &limit);
  const std::size_t usable = limit.rlim_cur - std::min<rlim_t>(limit.rlim_cur / 2, 128);
  Dispatcher::Limits limits;
  // An open file may have one to read and one to write.
  limits.open_files = std::min<std::size_t>(1024, usable / 8);
  limits.nodes.descriptors = usable - 2 * limits.open_files;
  return limits;
}

Result<UniqueFd> resynchronise(UniqueFd port, std::chrono::milliseconds deadline) {
  boost::asio::io_context context;
  boost::asio::posix::stream_descriptor stream(context, port.release());
  Result<void> result;
  boost::asio::co_spawn(context, wire::resync_as_host(stream, deadline),
                        [&](std::exception_ptr, Result<void> outcome) { result = std::move(outcome); });
  context.run();
  UniqueFd fd(stream.release());
  SBX_CHECK(std::move(result), "resynchronising the files port");
  return fd;
}

Result<void> run(int argc, char** argv) {
  auto options = SBX_TRY(parse_options(argc, argv), "starting");
  ::umask(0);  // the guest's kernel has applied the umask of the guest's process
  auto limits = raise_limits();
  limits.cache = std::chrono::milliseconds(options.cache_ms);
  if (options.journal_fd < 0 && !options.deny) options.protect.clear();  // nobody would know
  Rules rules;
  rules.protect = SBX_TRY(Patterns::parse(options.protect, Patterns::Exceptions::kMayBeStale), "reading --protect");
  rules.hide = SBX_TRY(Patterns::parse(options.hide, Patterns::Exceptions::kMayBeStale), "reading --hide");
  rules.deny = options.deny;
  std::vector<Workspace> workspaces;
  for (const auto& spec : options.workspaces) workspaces.push_back(SBX_TRY(open_workspace(spec), "starting"));
  options.workspaces.clear();  // and what was opened on the host, where no mount of the jail limits it
  auto port = SBX_TRY(connect_port(options), "starting");
  auto watch = HostWatch::make();
  if (!watch) std::fprintf(stderr, "sbx-files: nothing is cached: %s\n", watch.error().describe().c_str());
  UniqueFd control(options.control_fd);
  if (control.valid()) ::fcntl(control.get(), F_SETFD, FD_CLOEXEC);
  std::optional<Journal> journal;
  if (options.journal_fd >= 0) {
    UniqueFd before(options.before_fd);
    for (const int fd : {options.journal_fd, options.before_fd}) ::fcntl(fd, F_SETFD, FD_CLOEXEC);
    journal.emplace(UniqueFd(options.journal_fd), std::move(before));
  }
  UniqueFd late;
  if (!options.late_folder.empty()) late = SBX_TRY(open_file(options.late_folder, O_PATH | O_DIRECTORY), "starting");
  SBX_CHECK(lock_down(workspaces, late.get()), "starting");
  port = SBX_TRY(resynchronise(std::move(port), std::chrono::milliseconds(options.resync_ms)), "starting");
  Dispatcher dispatcher(std::move(workspaces), limits,
                        watch ? std::optional<HostWatch>(*std::move(watch)) : std::nullopt, std::move(rules),
                        std::move(journal), std::move(late));
  return serve(port.get(), dispatcher, control.get());
}

}  // namespace
}  // namespace sbx::files

int main(int argc, char** argv) {
  ::signal(SIGPIPE, SIG_IGN);
  if (const auto result = sbx::files::run(argc, argv); !result) {
    std::fprintf(stderr, "sbx-files: %s\n", result.error().describe().c_str());
    return 1;
  }
  return 0;
}
