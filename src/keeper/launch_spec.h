// LaunchSpec: what sbxd tells a keeper to run (docs/development/protocols.md, "Keeper launch"). A plain value.
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "vm/jail.h"
#include "vm/machine_spec.h"

namespace sbx::keeper {

enum class LaunchMode { kClone, kResume, kBoot, kTemplate };

struct Workspace {
  int index = 0;
  std::string path;  // absolute, in the guest
  bool readonly = false;
  bool file = false;
  std::string source = {};  // absolute, on the host; known to the supervisor alone
};

// What sbx-files is to tell of, refuse and hide: patterns (files/patterns.h).
struct Protection {
  std::vector<std::string> protect;
  std::vector<std::string> hide;
  bool deny = false;
};

struct LaunchSpec {
  LaunchMode mode = LaunchMode::kClone;
  std::string sandbox_id;
  std::string name;
  std::filesystem::path runtime_folder;
  std::filesystem::path sandbox_folder;   // not for kTemplate
  std::filesystem::path template_folder;  // kTemplate: the folder to fill
  std::filesystem::path image_folder;
  std::filesystem::path guest_binary;  // kTemplate only
  int cpus = 1;
  int memory_mib = 2048;
  vm::Accelerator accelerator = vm::Accelerator::kTcg;
  nlohmann::json identity = nlohmann::json::object();  // handed to the guest as it is
  std::vector<Workspace> workspaces;
  bool spare = false;      // kClone: nobody's yet; what it becomes is told by an Adoption
  int jail_slot = -1;      // see vm::jail_uid; -1: none
  int gateway_fd = -1;     // inherited listening socket for sbx-gateway; -1: no gateway
  bool ssh_agent = false;  // the gateway may be connected to ssh_agent_socket()
  Protection protection;

  // The uid of one of its jails; nullopt when we are not root.
  std::optional<unsigned> jail_uid(vm::JailRole role) const;
  std::filesystem::path disk() const { return sandbox_folder / "disk.qcow2"; }
  // A symbolic link to the socket of the user's SSH agent; sbxd sets it anew when that one has moved.
  std::filesystem::path ssh_agent_socket() const { return runtime_folder / "ssh-agent"; }
  std::filesystem::path memory_image() const { return sandbox_folder / "memory.img"; }
  // What sbx-files writes down (files/journal.h); read by sandbox/changes.h.
  std::filesystem::path journal() const { return sandbox_folder / "changes"; }
  std::filesystem::path journal_before() const { return sandbox_folder / "changes.before"; }
  std::filesystem::path initramfs() const { return template_folder / "initramfs"; }
  std::filesystem::path kernel() const { return image_folder / "vmlinux"; }
  std::filesystem::path root_image() const { return image_folder / "root.ext4"; }
};

// kInvalid names the member that is missing or wrong.
Result<LaunchSpec> parse_launch_spec(std::string_view text);
// What a spare clone becomes, as far as the supervisor must know it. The rest, which is the guest's, goes to the
// worker.
struct Adoption {
  std::string name;
  std::vector<Workspace> workspaces;
  bool ssh_agent = false;
  Protection protection;
};
// adopt.json of the runtime folder, which the daemon alone writes; it is gone afterwards.
Result<Adoption> take_adoption(const std::filesystem::path& runtime_folder);
// {"workspaces":[...]} of mounts.json in the runtime folder, which the daemon alone writes.
Result<std::vector<Workspace>> read_mounts(const std::filesystem::path& runtime_folder);
nlohmann::json workspaces_json(const std::vector<Workspace>& workspaces);
// The list in such a document; throws json::exception.
std::vector<Workspace> workspaces_from(const nlohmann::json& list);

}  // namespace sbx::keeper
