#include "keeper/gateway_server.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "base/file.h"
#include "keeper/files_server.h"
#include "vm/jail.h"
#include "vm/machine_process.h"

namespace sbx::keeper {

namespace fs = std::filesystem;

namespace {

constexpr int kNetworkPort = 1;
constexpr const char* kBundleInJail = "/etc/ssl/certs/ca-certificates.crt";

// Where distributions keep it.
constexpr const char* kBundles[] = {kBundleInJail, "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem",
                                    "/etc/ssl/cert.pem"};

// What the host's programs verify servers against: OpenSSL's own variable of the daemon's environment, else the
// system's.
fs::path host_bundle() {
  if (const char* named = std::getenv("SSL_CERT_FILE"); named != nullptr && *named != '\0') return named;
  const auto* found = std::ranges::find_if(kBundles, [](const char* bundle) { return fs::exists(bundle); });
  return found != std::end(kBundles) ? *found : kBundleInJail;
}

// Bound by what a link leads to: /etc/resolv.conf is often one into /run.
void bind_if_there(vm::JailSpec& jail, const fs::path& source, const std::string& target) {
  std::error_code error;
  const auto real = fs::canonical(source, error);
  if (!error && fs::is_regular_file(real, error)) jail.binds.push_back({real, target, vm::BindMode::kReadOnly});
}

// Invalid if nobody listens there, or is too busy to.
UniqueFd connect_to(const fs::path& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  UniqueFd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!socket.valid() || path.native().size() >= sizeof address.sun_path) return UniqueFd();
  path.native().copy(address.sun_path, sizeof address.sun_path - 1);
  if (::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) return UniqueFd();
  return socket;
}

}  // namespace

Command gateway_command(const LaunchSpec& spec, const fs::path& program, int port_fd, int control_fd, int agent_fd) {
  vm::JailSpec jail;
  jail.network = true;
  jail.uid = spec.jail_uid(vm::JailRole::kGateway);  // not QEMU's
  jail.binds.push_back({program, "/sbx-gateway", vm::BindMode::kReadOnly});
  for (const char* file : {"/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf", "/etc/host.conf", "/etc/gai.conf"}) {
    bind_if_there(jail, file, file);
  }
  bind_if_there(jail, host_bundle(), kBundleInJail);
  jail.argv = {"/sbx-gateway", "--port-fd",  std::to_string(port_fd), "--control-fd", std::to_string(control_fd),
               "--ca-bundle",  kBundleInJail};
  if (agent_fd >= 0) jail.argv.insert(jail.argv.end(), {"--agent-fd", std::to_string(agent_fd)});
  auto command = vm::jailed(jail);
  command.keep_fd(port_fd).keep_fd(control_fd);
  if (agent_fd >= 0) command.keep_fd(agent_fd);
  return command;
}

Result<Subprocess> start_gateway(const LaunchSpec& spec, UniqueFd& control) {
  const auto program = SBX_TRY(sibling_program("sbx-gateway"), "starting sbx-gateway");
  const auto port = SBX_TRY(vm::connect_port(spec.runtime_folder, kNetworkPort), "connecting to the network port");
  const auto log =
      SBX_TRY(open_file(spec.runtime_folder / "gateway.log", O_CREAT | O_WRONLY | O_APPEND), "starting sbx-gateway");
  control.reset();
  UniqueFd theirs;
  if (spec.ssh_agent) {
    int ends[2];
    if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0) return fail_errno("socketpair", errno);
    control.reset(ends[0]);
    theirs.reset(ends[1]);
  }
  return gateway_command(spec, program, port.get(), spec.gateway_fd, theirs.get()).stderr_to(log.get()).start();
}

bool connect_to_agent(int control, const fs::path& agent) {
  char request[8];
  const ssize_t got = ::recv(control, request, sizeof request, MSG_DONTWAIT);
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) return true;
  if (got <= 0) return false;
  const auto connection = connect_to(agent);
  char answer = 'a';
  iovec data{&answer, 1};
  alignas(cmsghdr) char room[CMSG_SPACE(sizeof(int))] = {};
  msghdr message{};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  if (connection.valid()) {
    message.msg_control = room;
    message.msg_controllen = sizeof room;
    auto* header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int));
    const int fd = connection.get();
    std::memcpy(CMSG_DATA(header), &fd, sizeof fd);
  }
  // A gateway that asks and does not take the answers is none that we serve.
  return ::sendmsg(control, &message, MSG_NOSIGNAL | MSG_DONTWAIT) == 1;
}

}  // namespace sbx::keeper
