// The user's SSH agent, forwarded to a sandbox: where it listens, as its keeper finds it.
#include "base/random.h"
#include "sandbox/lifecycle.h"

namespace sbx::sandbox {

namespace fs = std::filesystem;

namespace {

// A link beside keeper.sock (LaunchSpec::ssh_agent_socket()), replaced in one step.
Result<void> point_to_agent(const fs::path& runtime_folder, const std::string& socket) {
  const fs::path link = runtime_folder / "ssh-agent";
  const fs::path fresh = link.native() + "." + random_hex(8);
  std::error_code error;
  fs::create_symlink(socket, fresh, error);
  if (!error) fs::rename(fresh, link, error);
  if (error) return fail(ErrorCode::kInternal, "linking to the SSH agent: " + error.message());
  return {};
}

}  // namespace

Result<std::optional<std::string>> Lifecycle::ssh_agent(const std::string& id) { return ssh_agents_.of(id); }

Result<void> Lifecycle::offer_ssh_agent(const store::Sandbox& row) {
  const auto socket = SBX_TRY(ssh_agents_.of(row.id), "forwarding the SSH agent");
  if (!socket) return {};
  return point_to_agent(paths_.runtime(row.id), *socket);
}

Result<void> Lifecycle::follow_ssh_agent(const std::string& name, const std::string& socket) {
  const auto row = SBX_TRY(require(name), "following the SSH agent");
  const auto known = SBX_TRY(ssh_agents_.of(row.id), "following the SSH agent");
  // Not forwarded, or still where it was; a client whose agent is gone does not take another's away.
  if (!known || *known == socket || !check_ssh_agent(socket)) return {};
  SBX_CHECK(ssh_agents_.set(row.id, socket), "following the SSH agent");
  std::error_code error;
  if (!fs::exists(paths_.runtime(row.id), error)) return {};  // the next start makes the link
  return point_to_agent(paths_.runtime(row.id), socket);
}

}  // namespace sbx::sandbox
