// Who a command runs as: /etc/passwd and /etc/group read by hand (a static glibc has no NSS), with Docker's rules for
// `--user`. Pure functions of the two files' text; any thread.
#pragma once

#include <sys/types.h>

#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace sbx::guest {

struct User {
  uid_t uid = 0;
  gid_t gid = 0;
  std::vector<gid_t> groups;  // supplementary
  std::string name;           // the uid in decimal if passwd does not know it
  std::string home = "/";
  std::string shell = "/bin/sh";
};

// `wanted` is "name", "uid", "name:group" or "uid:gid"; empty means agent, or root where there is no agent. A number
// that passwd does not know is allowed (group 0, home /); a name is not (kNotFound, with Docker's message). An explicit
// group replaces the supplementary groups too.
Result<User> resolve_user(std::string_view wanted, std::string_view passwd, std::string_view group);

// The same with /etc/passwd and /etc/group.
Result<User> find_user(std::string_view wanted);

}  // namespace sbx::guest
