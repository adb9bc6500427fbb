// LaunchSpec: what sbx-keeper is told when it is started (docs/development/protocols.md, "Keeper launch").
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "store/sandbox_store.h"

namespace sbx::sandbox {

struct LaunchFolders {
  std::filesystem::path runtime;
  std::filesystem::path sandbox;
  std::filesystem::path template_folder;
  std::filesystem::path image;
};

// What the guest of a sandbox is told, beside what its row says.
struct GuestFacts {
  std::vector<std::string> environment;  // "K=V", the row's own included
  std::vector<std::string> authorities;  // PEM, one certificate each
  int gateway_fd = -1;
  int jail_slot = -1;  // see store::SandboxStore::jail_slot(); -1: none
  bool ssh_agent = false;
};

// `mode` is "clone", "resume" or "boot". The identity gets fresh entropy and the time of the call.
nlohmann::json launch_spec(const store::Sandbox& sandbox, const std::string& mode, const LaunchFolders& folders,
                           const GuestFacts& facts);

// A workspace as a keeper is told of it.
nlohmann::json mount_of(const store::Workspace& workspace);

// A spare clone of this template, which is nobody's: `sandbox` has an id and a size.
nlohmann::json spare_spec(const store::Sandbox& sandbox, const LaunchFolders& folders, const GuestFacts& facts);

// What a spare is told when it becomes `sandbox`: adopt.json for its supervisor, the body of POST /adopt for its
// worker.
struct Adoption {
  std::string file;
  nlohmann::json request;
};
Adoption adoption_of(const store::Sandbox& sandbox, const GuestFacts& facts);

struct TemplateSpec {
  LaunchFolders folders;
  std::int64_t cpus = 1;
  std::int64_t memory_mib = 2048;
  std::string accelerator;
  std::filesystem::path guest_binary;
};
nlohmann::json template_spec(const TemplateSpec& spec);

}  // namespace sbx::sandbox
