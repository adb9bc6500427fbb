// sbx-guest in the place of runc and crun: how containers come to trust the gateway.
//
// dockerd, its BuildKit and containerd start a container by `runc create|run --bundle FOLDER` and run a command in one
// by `runc exec --process FILE`. What they find under these names first (kRuntimeLinks) is this very program, which
// adds to the container's config.json
//   /dev/sbx/ca-certificates.crt   the image's own bundle of authorities (or the guest's) and those of the host
//   /dev/sbx/extra-ca.pem          those of the host alone
// and the variables that point programs to them, unless the container sets them itself, and then becomes the real
// runtime. /dev is a tmpfs of each container: nothing of this ends up in an image, and the container's own
// /etc/ssl/certs stays its to change. No proxy is set: connections are redirected wherever they come from, and proxy
// variables would get in the way between containers.
//
// Whatever goes wrong here, the container starts as it would have without.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace sbx::guest {

inline constexpr const char* kRuntimeFolder = "/run/sbx/bin";

// Makes the links, at boot.
Result<void> install_runtime_links();
// Whether this process was started under the name of a container runtime.
bool is_container_runtime(std::string_view argv0);
// Becomes the real runtime. Returns an exit status if it cannot.
int run_container_runtime(char** argv);

// What a command line is about: the subcommand, and the folder or file that it names.
struct RuntimeCall {
  enum class Kind { kOther, kStart, kExec } kind = Kind::kOther;
  std::string path;
};
RuntimeCall parse_runtime_call(const std::vector<std::string>& arguments);
// config.json with mounts and variables; `bundle` is the merged file's path outside.
Result<std::string> config_with_authorities(std::string_view config, const std::string& bundle);
// process.json (`exec`) with the variables.
Result<std::string> process_with_authorities(std::string_view process);

}  // namespace sbx::guest
