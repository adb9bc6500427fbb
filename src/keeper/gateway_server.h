// The jailed sbx-gateway of a sandbox: the only process of it that may reach the network.
#pragma once

#include <filesystem>

#include "base/command.h"
#include "base/result.h"
#include "base/unique_fd.h"
#include "keeper/launch_spec.h"

namespace sbx::keeper {

// The jail's command; `port_fd` is the connected network port, `control_fd` the listening socket for sbxd, `agent_fd`
// the gateway's end of the socket for SSH agent connections (-1: none is forwarded). Data only: unit-testable. Of the
// host it sees /usr, the program, the bundle of certificate authorities and what resolving a name takes, read-only, and
// its network; as root it runs under a uid of its own.
Command gateway_command(const LaunchSpec& spec, const std::filesystem::path& program, int port_fd, int control_fd,
                        int agent_fd = -1);

// Connects to the network port and starts the gateway on it. It dies with the calling thread. kNotFound if the program
// is not there. sbxd, not the keeper, speaks to a gateway; `control` becomes the socket on which the gateway asks for
// connections to the SSH agent, if one is forwarded.
Result<Subprocess> start_gateway(const LaunchSpec& spec, UniqueFd& control);

// Does what the gateway has asked for on that socket: one byte is answered with one byte, and along with it a
// connection to what listens on `agent`, if anybody does. Does not block. False when the gateway has hung up.
bool connect_to_agent(int control, const std::filesystem::path& agent);

}  // namespace sbx::keeper
