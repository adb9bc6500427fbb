// A network of a test's own: namespaces without an uplink, in which names and public addresses are the test's to give.
// A bug in what is tested can reach nothing.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"

namespace sbx::gateway::test {

// Moves this process (before it has threads) into user, mount and network namespaces of its own, brings loopback up,
// gives it `addresses` (IPv4) and makes `hosts` the /etc/hosts. Without a resolver: other names do not exist. All but
// `own_address` look like another host's: what is sent to them comes from 127.0.0.1.
Result<void> enter_test_network(const std::vector<std::string>& addresses, const std::string& own_address,
                                const std::string& hosts);

}  // namespace sbx::gateway::test
