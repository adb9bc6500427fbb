// JailSpec describes what a jailed program may see; jailed() makes the bubblewrap command line that starts it so.
//
//   JailSpec spec;
//   spec.argv = {"/usr/bin/qemu-system-x86_64", ...};
//   spec.binds = {{"/var/lib/sbx/templates/ab/ram", "/ram", BindMode::kReadOnly}};
//   spec.uid = jail_uid(slot, JailRole::kMachine);
//   auto child = SBX_TRY(jailed(spec).keep_fd(7).start(), "starting QEMU");
//
// Every jail has: namespaces of its own (mount, pid, ipc, uts, cgroup, and net unless kept; user, when we are not
// root), no capabilities, no_new_privs, an empty environment, a session of its own, /usr read-only, private /dev and
// /tmp, no /proc (so that no inherited descriptor can be opened anew with more rights) unless asked for, and it dies
// with the thread that started it, however early, and whole.
//
// Without root: in a user namespace under the caller's uid. As root with `uid`: no user namespace; bubblewrap sets up
// the mounts as root, then setpriv(1) changes to that uid and drops everything. Binds are made before the change, so
// the uid needs to reach only the bound files, never the folders above them.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "base/command.h"

namespace sbx::vm {

enum class BindMode { kReadOnly, kReadWrite, kDevice };  // all nosuid; all but kDevice nodev

struct Bind {
  std::filesystem::path source;  // on the host
  std::string target;            // in the jail, absolute
  BindMode mode = BindMode::kReadOnly;
};

struct JailSpec {
  std::vector<std::string> argv;
  std::vector<Bind> binds;
  std::vector<std::string> environment;  // "K=V"
  // A uid (and gid) of its own; only as root, ignored otherwise. Without it root's jail keeps uid 0, without
  // capabilities, in a user namespace.
  std::optional<unsigned> uid;
  std::vector<unsigned> groups;  // extra groups for `uid` (kvm)
  bool network = false;          // keep the host's network
  bool proc = false;             // a /proc of its pid namespace
};

Command jailed(const JailSpec& spec);

// The uids of a sandbox's jails: the store gives each sandbox a slot that no other has (store/sandbox_store.h), and a
// slot is four uids in [200000, 232768). nullopt when we are not root.
enum class JailRole { kMachine, kWorker, kGateway };
inline constexpr unsigned kJailSlots = 8192;
std::optional<unsigned> jail_uid(unsigned slot, JailRole role);

// A uid in [232768, 265536) for what has no slot (template builds, trials), from its runtime folder's name; nullopt
// when we are not root.
std::optional<unsigned> jail_uid_for(const std::filesystem::path& runtime_folder);

// The innermost process of a jail: the child of the child of bubblewrap, as the host numbers it. kNotFound while it is
// not there yet, or no more.
Result<pid_t> jailed_pid(pid_t bubblewrap);

}  // namespace sbx::vm
