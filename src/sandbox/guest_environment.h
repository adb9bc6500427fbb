// What programs in a sandbox are told so that they find the gateway and trust its certificates (docs/sandbox.md). Pure,
// but for the host's own authorities, which are read from its files.
#pragma once

#include <string>
#include <vector>

namespace sbx::sandbox {

// "K=V": the proxy, in both cases of the names, and the certificate authorities, in the variables of each tool that
// does not ask the system. `root` is the PEM of this instance's root.
std::vector<std::string> gateway_environment(const std::string& sandbox_id, const std::string& root);

// PEM of the authorities that an administrator has added to this host, one certificate each: spliced connections show
// what the host's own would, and that may be the certificate of a company's proxy.
std::vector<std::string> host_authorities();

}  // namespace sbx::sandbox
