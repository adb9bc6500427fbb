// The ssh_agents table: the sandboxes that the user's SSH agent is forwarded to, and where that agent listens. Every
// call is one transaction. Thread safety: none; the daemon's event loop.
#pragma once

#include <optional>
#include <string>

#include "store/database.h"

namespace sbx::store {

class SshAgentStore {
 public:
  explicit SshAgentStore(Database& database) : database_(database) {}

  // The path of its socket; nothing where no agent is forwarded.
  Result<std::optional<std::string>> of(const std::string& sandbox_id);
  Result<void> set(const std::string& sandbox_id, const std::string& socket);

 private:
  Database& database_;
};

}  // namespace sbx::store
