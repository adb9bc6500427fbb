// Builds a template: boots once until Docker answers, freezes, saves (docs/architecture.md, "Template").
#pragma once

#include "base/result.h"
#include "base/unique_fd.h"
#include "keeper/supervisor_client.h"
#include "keeper/worker_spec.h"
#include "wire/http2_session.h"

namespace sbx::keeper {

// Drives the machine behind `qmp` until it is saved to `state` and the supervisor has sealed the template. Returns the
// milliseconds until Docker was ready. On failure the folder is left as it is; who made it removes it.
wire::Awaitable<Result<std::int64_t>> build_template(WorkerSpec spec, UniqueFd qmp, UniqueFd state,
                                                     SupervisorClient& supervisor);

}  // namespace sbx::keeper
