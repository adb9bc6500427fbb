// The daemon's log: one JSON object a line on its stderr. Any thread.
#pragma once

#include <nlohmann/json.hpp>

namespace sbx::sandbox {

// Adds the time.
void log_line(nlohmann::json entry);

}  // namespace sbx::sandbox
