#include "cli/main.h"

#include <iostream>

#include "cli/command_line.h"
#include "cli/table.h"

namespace sbx::cli {

int run(std::vector<std::string> argv) {
  const CommandLine line = parse_command_line(argv);
  if (line.exit_status >= 0) return line.exit_status;
  Result<int> status = 0;
  if (auto paths = store::Paths::from_environment(line.app_name); !paths)
    status = std::unexpected(paths.error());
  else if (line.action)
    status = line.action(ApiClient(*paths, line.app_name));
  if (status) return *status;
  const Error& error = status.error();
  if (line.json) {
    nlohmann::json body;
    body["error"] = {{"code", to_string(error.code)}, {"message", error.message}};
    std::cerr << body.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) << "\n";
  } else {
    // It may be a guest's.
    std::cerr << "ERROR: " << visible(line.debug ? error.describe() : error.message, "\n\t") << "\n";
  }
  return line.failure;
}

}  // namespace sbx::cli
