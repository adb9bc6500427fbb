// What a client asks for in POST /v1/sandboxes, checked.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "sandbox/clone_mode.h"
#include "sandbox/port_spec.h"
#include "store/sandbox_store.h"

namespace sbx::sandbox {

struct CreateRequest {
  std::string name;  // "": derived
  std::string agent;
  std::vector<store::Workspace> workspaces;  // the first is the primary one
  std::int64_t cpus = 0;                     // 0: the default of the accelerator
  std::int64_t memory_mib = 0;               // 0: the default of the accelerator
  std::vector<std::string> env;
  std::map<std::string, std::string> labels;
  std::int64_t auto_stop_s = 30;
  std::string image;                                     // id or name; "": the newest
  std::vector<std::string> allow_network, deny_network;  // resource patterns of rules of its own
  std::vector<std::string> profiles;                     // of rules, to be attached
  std::vector<PortSpec> ports;                           // to be published
  std::optional<ClonePlan> clone;                        // of the first workspace, which is its read-only source
  std::string ssh_agent;                                 // socket of the SSH agent to forward; "": none
  store::Protection protection;
};

inline constexpr std::int64_t kLeastMemoryMib = 512;

// kInvalid names the member that is wrong. Workspaces are made absolute and checked: they exist, a single file is
// read-only, none hides what the guest needs to run, and none holds or lies in `home` (sbx's own state: a guest that
// can write there owns every other sandbox).
Result<CreateRequest> parse_create_request(const nlohmann::json& body, const std::filesystem::path& home);

// kInvalid unless `socket` is the absolute path of a unix socket.
Result<void> check_ssh_agent(const std::string& socket);

// Most memory that may be asked for: 75% of the host's, at least kLeastMemoryMib.
std::int64_t most_memory_mib();

}  // namespace sbx::sandbox
