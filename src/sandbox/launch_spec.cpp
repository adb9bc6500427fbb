#include "sandbox/launch_spec.h"

#include <time.h>

#include <nlohmann/json.hpp>

#include "base/random.h"

namespace sbx::sandbox {
namespace {

using nlohmann::json;

json identity_of(const store::Sandbox& sandbox, const GuestFacts& facts) {
  timespec now{};
  ::clock_gettime(CLOCK_REALTIME, &now);
  return {{"hostname", sandbox.name},
          {"machine_id", sandbox.machine_id},
          {"entropy", base64(random_bytes(256))},
          {"time_ns", now.tv_sec * 1'000'000'000LL + now.tv_nsec},
          {"environment", facts.environment},
          {"authorities", facts.authorities},
          {"ssh_agent", facts.ssh_agent},
          {"sandbox_id", sandbox.id}};
}

}  // namespace

json mount_of(const store::Workspace& workspace) {
  return {{"index", workspace.index},
          {"path", workspace.path},
          {"source", workspace.on_host()},
          {"readonly", workspace.readonly},
          {"file", workspace.file}};
}

json launch_spec(const store::Sandbox& sandbox, const std::string& mode, const LaunchFolders& folders,
                 const GuestFacts& facts) {
  json workspaces = json::array();
  for (const auto& workspace : sandbox.workspaces) workspaces.push_back(mount_of(workspace));
  const json protection = {
      {"protect", sandbox.protection.protect}, {"hide", sandbox.protection.hide}, {"deny", sandbox.protection.deny}};
  return {{"sandbox_id", sandbox.id},
          {"name", sandbox.name},
          {"mode", mode},
          {"runtime_folder", folders.runtime.native()},
          {"sandbox_folder", folders.sandbox.native()},
          {"template_folder", folders.template_folder.native()},
          {"image_folder", folders.image.native()},
          {"cpus", sandbox.cpus},
          {"memory_mib", sandbox.memory_mib},
          {"accelerator", sandbox.accelerator},
          {"identity", identity_of(sandbox, facts)},
          {"jail_slot", facts.jail_slot},
          {"gateway_fd", facts.gateway_fd},
          {"ssh_agent", facts.ssh_agent},
          {"protection", protection},
          {"workspaces", workspaces}};
}

json spare_spec(const store::Sandbox& sandbox, const LaunchFolders& folders, const GuestFacts& facts) {
  json result = launch_spec(sandbox, "clone", folders, facts);
  result["identity"] = json::object();
  result["spare"] = true;
  return result;
}

// The identity stays out of the file: it has entropy in it, and what the user has put into the environment.
Adoption adoption_of(const store::Sandbox& sandbox, const GuestFacts& facts) {
  json spec = launch_spec(sandbox, "clone", {}, facts);
  json file = json::object();
  for (const char* member : {"name", "workspaces", "ssh_agent", "protection"}) file[member] = spec[member];
  json request = json::object();
  request["identity"] = std::move(spec["identity"]);
  request["workspaces"] = std::move(spec["workspaces"]);
  for (auto& workspace : request["workspaces"]) workspace.erase("source");
  return {file.dump(-1, ' ', false, json::error_handler_t::replace), std::move(request)};
}

json template_spec(const TemplateSpec& spec) {
  store::Sandbox sandbox;
  sandbox.id = random_uuid();
  sandbox.name = "template";
  sandbox.machine_id = random_hex(32);
  sandbox.cpus = spec.cpus;
  sandbox.memory_mib = spec.memory_mib;
  sandbox.accelerator = spec.accelerator;
  json result = launch_spec(sandbox, "template", spec.folders, {});
  result["guest_binary"] = spec.guest_binary.native();
  return result;
}

}  // namespace sbx::sandbox
