#include "vm/jail.h"

#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <set>

#include "base/file.h"

namespace sbx::vm {
namespace {

namespace fs = std::filesystem;
using Arguments = std::vector<std::string>;

constexpr unsigned kFirstSlotUid = 200'000;
constexpr unsigned kUidsPerSlot = 4;

// On a merged-/usr system /lib and the like are links, elsewhere folders of their own.
void add_system_folders(Command& command) {
  command.add(Arguments{"--ro-bind", "/usr", "/usr"});
  for (const char* name : {"/lib", "/lib64", "/bin", "/sbin"}) {
    std::error_code error;
    if (fs::is_symlink(name, error)) {
      command.add(Arguments{"--symlink", fs::read_symlink(name, error).string(), name});
    } else if (fs::is_directory(name, error)) {
      command.add(Arguments{"--ro-bind", name, name});
    }
  }
  // Debian's alternatives: some of QEMU's libraries are links through it.
  std::error_code error;
  if (fs::is_directory("/etc/alternatives", error))
    command.add(Arguments{"--ro-bind", "/etc/alternatives", "/etc/alternatives"});
}

const char* option_for(BindMode mode) {
  switch (mode) {
    case BindMode::kReadWrite:
      return "--bind";
    case BindMode::kDevice:
      return "--dev-bind";
    case BindMode::kReadOnly:
      break;
  }
  return "--ro-bind";
}

// The folders above the targets that bubblewrap has to make: those that are no part of another mount.
std::set<std::string> made_folders(const std::vector<Bind>& binds) {
  const auto within = [](const fs::path& path, const fs::path& folder) {
    return std::mismatch(folder.begin(), folder.end(), path.begin(), path.end()).first == folder.end();
  };
  std::set<std::string> made;
  for (const Bind& bind : binds) {
    for (fs::path folder = fs::path(bind.target).parent_path(); folder != folder.root_path();
         folder = folder.parent_path()) {
      bool mounted = false;
      for (const char* other :
           {"/usr", "/lib", "/lib64", "/bin", "/sbin", "/dev", "/tmp", "/proc", "/etc/alternatives"})
        mounted = mounted || within(folder, other);
      for (const Bind& other : binds) mounted = mounted || within(folder, other.target);
      if (!mounted) made.insert(folder.string());
    }
  }
  return made;
}

std::string joined(const std::vector<unsigned>& numbers) {
  std::string out;
  for (const unsigned n : numbers) {
    if (!out.empty()) out.push_back(',');
    out.append(std::to_string(n));
  }
  return out;
}

Result<pid_t> only_child(pid_t parent) {
  const std::string pid = std::to_string(parent);
  const auto text = SBX_TRY(read_file("/proc/" + pid + "/task/" + pid + "/children", 4096), "looking into a jail");
  pid_t child = 0;
  std::from_chars(text.data(), text.data() + text.size(), child);
  if (child <= 0) return fail(ErrorCode::kNotFound, "process " + pid + " has no child");
  return child;
}

}  // namespace

Command jailed(const JailSpec& spec) {
  const bool own_uid = spec.uid && ::geteuid() == 0;
  Command command({"/usr/bin/bwrap", "--unshare-ipc", "--unshare-pid", "--unshare-uts", "--unshare-cgroup-try"});
  if (!spec.network) command.add("--unshare-net");
  if (!own_uid) command.add("--unshare-user");
  command.add(Arguments{"--die-with-parent", "--new-session", "--clearenv", "--cap-drop", "ALL"});
  // Held by setpriv for the moment in which it changes the uid; gone after it.
  if (own_uid) command.add(Arguments{"--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID", "--cap-add", "CAP_SETPCAP"});
  for (const std::string& variable : spec.environment) {
    const std::size_t equals = variable.find('=');
    if (equals != std::string::npos)
      command.add(Arguments{"--setenv", variable.substr(0, equals), variable.substr(equals + 1)});
  }
  add_system_folders(command);
  command.add(Arguments{"--dev", "/dev", "--tmpfs", "/tmp"});
  if (spec.proc) command.add(Arguments{"--proc", "/proc"});
  for (const Bind& bind : spec.binds) command.add(Arguments{option_for(bind.mode), bind.source.string(), bind.target});
  // bubblewrap makes these under our umask; a uid of its own could not pass through.
  for (const std::string& folder : made_folders(spec.binds)) command.add(Arguments{"--chmod", "0755", folder});
  command.add(Arguments{"--chdir", "/tmp", "--"});
  if (own_uid) {
    const std::string uid = std::to_string(*spec.uid);
    command.add(Arguments{"/usr/bin/setpriv", "--reuid", uid, "--regid", uid});
    if (spec.groups.empty()) {
      command.add("--clear-groups");
    } else {
      command.add(Arguments{"--groups", joined(spec.groups)});
    }
    command.add(Arguments{"--inh-caps=-all", "--bounding-set=-all", "--no-new-privs"});
  }
  command.add(spec.argv);
  // bubblewrap's own --die-with-parent comes late: what is killed before it leaves the rest of the jail behind.
  command.environment({}).die_with_parent().own_pid_namespace();
  return command;
}

std::optional<unsigned> jail_uid(unsigned slot, JailRole role) {
  if (::geteuid() != 0 || slot >= kJailSlots) return std::nullopt;
  return kFirstSlotUid + kUidsPerSlot * slot + static_cast<unsigned>(role);
}

std::optional<unsigned> jail_uid_for(const fs::path& runtime_folder) {
  if (::geteuid() != 0) return std::nullopt;
  std::uint32_t hash = 2166136261U;  // FNV-1a
  for (const char c : runtime_folder.lexically_normal().string()) {
    hash = (hash ^ static_cast<unsigned char>(c)) * 16777619U;
  }
  return kFirstSlotUid + kUidsPerSlot * kJailSlots + ((hash ^ (hash >> 15U)) & 0x7fffU);
}

Result<pid_t> jailed_pid(pid_t bubblewrap) {
  const pid_t first = SBX_TRY(only_child(bubblewrap), "finding the jail's first process");
  return only_child(first);
}

}  // namespace sbx::vm
