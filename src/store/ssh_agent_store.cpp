#include "store/ssh_agent_store.h"

namespace sbx::store {

Result<std::optional<std::string>> SshAgentStore::of(const std::string& sandbox_id) {
  std::optional<std::string> socket;
  SBX_CHECK(database_.run("SELECT socket FROM ssh_agents WHERE sandbox_id = ?", {sandbox_id},
                          [&](const Row& row) { socket = row.text(0); }),
            "looking up the SSH agent");
  return socket;
}

Result<void> SshAgentStore::set(const std::string& sandbox_id, const std::string& socket) {
  return database_.run("INSERT OR REPLACE INTO ssh_agents VALUES(?,?)", {sandbox_id, socket});
}

}  // namespace sbx::store
