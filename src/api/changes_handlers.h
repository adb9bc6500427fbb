// What a sandbox has changed in its workspaces, and what of that is protected from it.
#pragma once

#include "api/handlers.h"

namespace sbx::api {

SBX_HANDLER(get_changes);

// The rules of a sandbox, and what it has done or tried to do in spite of them (`protection` of GET
// /v1/sandboxes/{name}).
Awaitable<nlohmann::json> protection_of(Daemon& daemon, store::Sandbox row);

}  // namespace sbx::api
