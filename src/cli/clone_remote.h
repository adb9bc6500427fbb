// The host's side of clone mode: a remote `sandbox-NAME` in the user's repository, through which the user's git fetches
// what was committed in the sandbox.
//
//   [remote "sandbox-NAME"]
//     url = /run/sandbox/NAME                               no path of this host
//     uploadpack = '/usr/bin/sbx' git-upload-pack NAME      runs git-upload-pack in the sandbox
//     fetch = +refs/heads/*:refs/remotes/sandbox-NAME/*
//     fetch = +refs/heads/*:refs/sandboxes/NAME/*           outlives the sandbox
//
// The sandbox's repository is hostile. Nothing of it is read here but what comes through git's own protocol
// (gitprotocol-pack(5)): no hook, configuration or work tree. Objects are checked on arrival (fetch.fsckObjects), tags
// are not followed, and no ref outside of the two folders is written.
//
// Everything here runs the user's git on the user's repository, at a command of the user's.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "cli/api_client.h"

namespace sbx::cli {

// Where the API's view of a sandbox has the host's repository, and what of it is outside of the working tree.
inline constexpr const char* kCloneSource = "/run/sandbox/source";
inline constexpr const char* kCloneCommon = "/run/sandbox/git";

struct HostRepository {
  std::string root;                   // of the working tree
  std::string user_name, user_email;  // who commits, as git knows it; may be ""
  std::string not_carried_over;       // what a clone will not have, for people; ""
};

// The repository around `path`. kInvalid, in words, if it cannot be cloned.
Result<HostRepository> host_repository(const std::string& path);

// `sandbox` is the API's view of a sandbox; nothing happens for one that is no clone.
// Adds the remote, or puts it right. kConflict if the user has one of this name that is not ours.
Result<void> set_clone_remote(const ApiClient& client, const nlohmann::json& sandbox);
// Takes it away, with refs/remotes/sandbox-NAME; refs/sandboxes/NAME stay.
void remove_clone_remote(const nlohmann::json& sandbox);
// What would be lost with the sandbox, one line each, for people.
std::vector<std::string> unsaved_work(const ApiClient& client, const nlohmann::json& sandbox);

// `sbx git-upload-pack NAME`, which git runs: stdin and stdout are git's.
Result<int> serve_upload_pack(const ApiClient& client, const std::string& name);

}  // namespace sbx::cli
