// Builds a template: boots once until Docker answers, freezes, saves (docs/architecture.md, "Template").
#pragma once

#include "base/result.h"
#include "keeper/launch_spec.h"
#include "wire/http2_session.h"

namespace sbx::keeper {

// Fills spec.template_folder (which exists and is empty). Returns the milliseconds from QEMU's start to Docker ready.
// On failure the folder is left as it is; who made it removes it.
wire::Awaitable<Result<std::int64_t>> build_template(const LaunchSpec& spec);

}  // namespace sbx::keeper
