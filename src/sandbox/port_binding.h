// Sockets of the host that published ports listen on. They are made here and served by the sandbox's keeper
// (keeper/port_table.h).
#pragma once

#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"
#include "sandbox/port_spec.h"
#include "store/port_store.h"

namespace sbx::sandbox {

struct BoundPort {
  store::PublishedPort port;
  UniqueFd socket;
};

// One or two of them. kConflict says who has the port and how to choose another, kDenied that the user may not have it,
// kInvalid that the host has no such address.
Result<std::vector<BoundPort>> bind_spec(const PortSpec& spec);
// Again, after a stop. Of an ephemeral one the same port if it is free, else another.
Result<BoundPort> bind_again(const store::PublishedPort& port);

}  // namespace sbx::sandbox
