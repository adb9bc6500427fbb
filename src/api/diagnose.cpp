#include <sys/statvfs.h>
#include <unistd.h>

#include "api/handlers.h"
#include "image/manifest.h"
#include "vm/template.h"

namespace sbx::api {

using nlohmann::json;

namespace {

void add(json& checks, const std::string& name, const std::string& status, const std::string& message,
         const std::string& hint = "") {
  json check = {{"name", name}, {"status", status}, {"message", message}};
  if (!hint.empty()) check["hint"] = hint;
  checks.push_back(check);
}

void check_program(json& checks, const std::string& name, const std::filesystem::path& path, const std::string& hint) {
  const bool there = ::access(path.c_str(), X_OK) == 0;
  add(checks, name, there ? "pass" : "fail", there ? path.native() : path.native() + " cannot be executed",
      there ? "" : hint);
}

}  // namespace

SBX_HANDLER(diagnose) {
  (void)request, (void)progress;
  json checks = json::array();
  const auto& paths = daemon.lifecycle.paths();
  check_program(checks, "Keeper", daemon.programs / "sbx-keeper", "reinstall sbx");
  check_program(checks, "Keeper worker", daemon.programs / "sbx-keeper-worker", "reinstall sbx");
  check_program(checks, "Gateway", daemon.programs / "sbx-gateway",
                "reinstall sbx: without it sandboxes have no network");
  check_program(checks, "Guest program", daemon.programs / "sbx-guest", "reinstall sbx");
  check_program(checks, "Jail", "/usr/bin/bwrap", "install bubblewrap");
  const auto qemu = vm::qemu_version();
  add(checks, "QEMU", qemu ? "pass" : "fail", qemu ? qemu->text : qemu.error().message,
      qemu ? "" : "install qemu-system-x86");

  const auto images = image::list_images(paths.images());
  const std::string image_id = images && !images->empty() ? images->back().id : "";
  add(checks, "Image", image_id.empty() ? "warn" : "pass", image_id.empty() ? "no image yet" : image_id,
      image_id.empty() ? "sbx image build" : "");
  const auto verdict = co_await daemon.lifecycle.artifacts().accelerator(image_id);
  const bool kvm = verdict.accelerator == vm::Accelerator::kKvm;
  add(checks, "Virtualization", kvm ? "pass" : "warn",
      std::string(vm::to_string(verdict.accelerator)) + ": " + verdict.reason,
      kvm ? ""
          : "sandboxes run in software emulation: slower, and QEMU's TCG is not a security boundary by itself "
            "(docs/security.md)");

  struct statvfs space {};
  if (::statvfs(paths.home.c_str(), &space) == 0) {
    const auto free_mib = static_cast<std::uint64_t>(space.f_bavail) * space.f_frsize >> 20U;
    const bool enough = free_mib > 5'000;
    add(checks, "Disk space", enough ? "pass" : "warn",
        std::to_string(free_mib) + " MiB free in " + paths.home.native(), enough ? "" : "sbx prune, or move SBX_HOME");
  }
  const bool writable = ::access(paths.home.c_str(), W_OK) == 0;
  add(checks, "Storage directories", writable ? "pass" : "fail", paths.home.native());
  const auto secrets = co_await daemon.lifecycle.secrets().store();
  add(checks, "Secrets", secrets ? "pass" : "fail", secrets ? secrets->description : secrets.error().message,
      secrets ? "" : "docs/secrets.md");
  co_return json{{"checks", checks}};
}

}  // namespace sbx::api
