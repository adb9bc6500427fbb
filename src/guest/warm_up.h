// warm_up(): runs a command for what it leaves in the page cache, of which every clone of the template then has its
// share. In sbx-guest's own cgroup, so that reclaim() at the end of a session does not count it as the user's.
#pragma once

#include <string>
#include <string_view>

#include "base/result.h"
#include "guest/guest.h"

namespace sbx::guest {

// `body` is {"argv":[...]}; as the user that commands run as, without input and output. What it returns is ignored.
Awaitable<Result<void>> warm_up(Guest& guest, std::string body);

}  // namespace sbx::guest
