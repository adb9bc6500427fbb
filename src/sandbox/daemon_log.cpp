#include "sandbox/daemon_log.h"

#include <cstdio>

#include "store/clock.h"

namespace sbx::sandbox {

void log_line(nlohmann::json entry) {
  entry["time"] = store::rfc3339(store::now_ms());
  const std::string line = entry.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
  std::fwrite(line.data(), 1, line.size(), stderr);
}

}  // namespace sbx::sandbox
