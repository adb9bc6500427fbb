// `sbx changes`: what a sandbox has changed in its workspaces.
#pragma once

#include <string>

#include "cli/api_client.h"

namespace sbx::cli {

struct ChangesOptions {
  std::string name;
  bool json = false, diff = false;
};
Result<int> changes(const ApiClient&, const ChangesOptions&);

}  // namespace sbx::cli
