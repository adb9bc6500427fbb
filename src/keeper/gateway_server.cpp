#include "keeper/gateway_server.h"

#include <fcntl.h>

#include <algorithm>
#include <cstdlib>

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

}  // namespace

Command gateway_command(const LaunchSpec& spec, const fs::path& program, int port_fd, int control_fd) {
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
  auto command = vm::jailed(jail);
  command.keep_fd(port_fd).keep_fd(control_fd);
  return command;
}

Result<Subprocess> start_gateway(const LaunchSpec& spec, UniqueFd&) {
  const auto program = SBX_TRY(sibling_program("sbx-gateway"), "starting sbx-gateway");
  const auto port = SBX_TRY(vm::connect_port(spec.runtime_folder, kNetworkPort), "connecting to the network port");
  const auto log =
      SBX_TRY(open_file(spec.runtime_folder / "gateway.log", O_CREAT | O_WRONLY | O_APPEND), "starting sbx-gateway");
  return gateway_command(spec, program, port.get(), spec.gateway_fd).stderr_to(log.get()).start();
}

}  // namespace sbx::keeper
