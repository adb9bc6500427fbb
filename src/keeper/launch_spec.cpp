#include "keeper/launch_spec.h"

#include "base/file.h"

namespace sbx::keeper {

using nlohmann::json;

namespace {

Result<LaunchMode> mode_from(const std::string& word) {
  if (word == "clone") return LaunchMode::kClone;
  if (word == "resume") return LaunchMode::kResume;
  if (word == "boot") return LaunchMode::kBoot;
  if (word == "template") return LaunchMode::kTemplate;
  return fail(ErrorCode::kInvalid, "mode must be clone, resume, boot or template, not \"" + word + "\"");
}

Protection protection_from(const json& document) {
  Protection result;
  const auto protection = document.find("protection");
  if (protection == document.end()) return result;
  result.protect = protection->value("protect", std::vector<std::string>());
  result.hide = protection->value("hide", std::vector<std::string>());
  result.deny = protection->value("deny", false);
  return result;
}

LaunchSpec read_members(const json& document) {
  LaunchSpec spec;
  spec.sandbox_id = document.value("sandbox_id", "");
  spec.name = document.value("name", "");
  spec.runtime_folder = document.at("runtime_folder").get<std::string>();
  spec.sandbox_folder = document.value("sandbox_folder", "");
  spec.template_folder = document.at("template_folder").get<std::string>();
  spec.image_folder = document.at("image_folder").get<std::string>();
  spec.guest_binary = document.value("guest_binary", "");
  spec.cpus = document.at("cpus").get<int>();
  spec.memory_mib = document.at("memory_mib").get<int>();
  spec.identity = document.value("identity", json::object());
  spec.jail_slot = document.value("jail_slot", -1);
  spec.gateway_fd = document.value("gateway_fd", -1);
  spec.ssh_agent = document.value("ssh_agent", false);
  spec.spare = document.value("spare", false);
  spec.protection = protection_from(document);
  spec.workspaces = workspaces_from(document.value("workspaces", json::array()));
  return spec;
}

}  // namespace

std::optional<unsigned> LaunchSpec::jail_uid(vm::JailRole role) const {
  if (jail_slot >= 0) return vm::jail_uid(static_cast<unsigned>(jail_slot), role);
  return vm::jail_uid_for(runtime_folder / std::to_string(static_cast<int>(role)));
}

Result<LaunchSpec> parse_launch_spec(std::string_view text) {
  try {
    const auto document = json::parse(text);
    auto spec = read_members(document);
    spec.mode = SBX_TRY(mode_from(document.at("mode").get<std::string>()), "reading the launch spec");
    spec.accelerator = SBX_TRY(vm::accelerator_from(document.value("accelerator", "tcg")), "reading the launch spec");
    if (spec.cpus < 1 || spec.memory_mib < 128) {
      return fail(ErrorCode::kInvalid, "the launch spec needs cpus >= 1 and memory_mib >= 128");
    }
    if (spec.spare && (spec.mode != LaunchMode::kClone || !spec.workspaces.empty() || spec.ssh_agent))
      return fail(ErrorCode::kInvalid, "a spare is a clone that has nothing of a sandbox's");
    if (spec.jail_slot < -1 || spec.jail_slot >= static_cast<int>(vm::kJailSlots))
      return fail(ErrorCode::kInvalid, "jail_slot " + std::to_string(spec.jail_slot) + " is out of range");
    return spec;
  } catch (const json::exception& error) {
    return fail(ErrorCode::kInvalid, std::string("the launch spec is malformed: ") + error.what());
  }
}

Result<Adoption> take_adoption(const std::filesystem::path& runtime_folder) {
  const auto path = runtime_folder / "adopt.json";
  const auto text = SBX_TRY(read_file(path, 1U << 20U), "reading what the spare becomes");
  std::error_code ignored;
  std::filesystem::remove(path, ignored);
  try {
    const auto document = json::parse(text);
    Adoption adoption;
    adoption.name = document.at("name").get<std::string>();
    adoption.workspaces = workspaces_from(document.at("workspaces"));
    adoption.ssh_agent = document.value("ssh_agent", false);
    adoption.protection = protection_from(document);
    return adoption;
  } catch (const json::exception& error) {
    return fail(ErrorCode::kInvalid, std::string("adopt.json is malformed: ") + error.what());
  }
}

Result<std::vector<Workspace>> read_mounts(const std::filesystem::path& runtime_folder) {
  const auto text = SBX_TRY(read_file(runtime_folder / "mounts.json", 1U << 20U), "reading what is to be mounted");
  try {
    return workspaces_from(json::parse(text).at("workspaces"));
  } catch (const json::exception& error) {
    return fail(ErrorCode::kInvalid, std::string("mounts.json is malformed: ") + error.what());
  }
}

std::vector<Workspace> workspaces_from(const json& list) {
  std::vector<Workspace> workspaces;
  for (const auto& entry : list) {
    Workspace workspace;
    workspace.index = entry.at("index").get<int>();
    workspace.path = entry.at("path").get<std::string>();
    workspace.source = entry.value("source", workspace.path);
    workspace.readonly = entry.value("readonly", false);
    workspace.file = entry.value("file", false);
    workspaces.push_back(std::move(workspace));
  }
  return workspaces;
}

// Without the source: where a workspace is on the host is not for the worker and the guest to know.
json workspaces_json(const std::vector<Workspace>& workspaces) {
  auto list = json::array();
  for (const auto& workspace : workspaces) {
    list.push_back({{"index", workspace.index},
                    {"path", workspace.path},
                    {"readonly", workspace.readonly},
                    {"file", workspace.file}});
  }
  return {{"workspaces", list}};
}

}  // namespace sbx::keeper
