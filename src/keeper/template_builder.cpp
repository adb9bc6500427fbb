#include "keeper/template_builder.h"

#include <fcntl.h>
#include <spdlog/spdlog.h>

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>

#include "base/file.h"
#include "image/initramfs.h"
#include "keeper/exec_table.h"
#include "keeper/guest_link.h"
#include "keeper/template_key.h"
#include "vm/overlay.h"
#include "vm/template.h"
#include "vm/virtual_machine.h"

namespace sbx::keeper {

namespace asio = boost::asio;
using nlohmann::json;

namespace {

constexpr std::chrono::seconds kBootDeadline{180};
constexpr std::chrono::seconds kDockerDeadline{300};

// The end of the guest's console, for an error that tells why a boot failed.
std::string console_tail(const std::filesystem::path& path) {
  auto text = read_file(path).value_or("");
  return text.size() > 1500 ? text.substr(text.size() - 1500) : text;
}

wire::Awaitable<Result<void>> wait_for_docker(GuestLink& guest) {
  const auto until = std::chrono::steady_clock::now() + kDockerDeadline;
  asio::steady_timer timer(co_await asio::this_coro::executor);
  for (;;) {
    SBX_CO_TRY(const json status, co_await guest.call("GET", "/status", nullptr), "asking the guest for its status");
    const auto docker = status.value("docker", "");
    if (docker == "ready" || docker == "off") co_return Result<void>{};
    if (docker == "failed") co_return fail(ErrorCode::kUnavailable, "dockerd does not start in the guest");
    if (std::chrono::steady_clock::now() > until) {
      co_return fail(ErrorCode::kTimeout, "dockerd did not answer within 300 s");
    }
    timer.expires_after(std::chrono::milliseconds(200));
    (void)co_await timer.async_wait(asio::as_tuple(asio::use_awaitable));
  }
}

Result<vm::StartSpec> prepare(const LaunchSpec& spec, int console_fd) {
  const vm::TemplatePaths paths(spec.template_folder);
  SBX_CHECK(image::write_initramfs(spec.guest_binary, spec.image_folder, spec.initramfs()), "making the initramfs");
  vm::OverlayOptions options;
  options.virtual_size =
      SBX_TRY(vm::virtual_disk_size(spec.root_image(), vm::DiskFormat::kRaw), "reading the root image");
  options.backing_file = spec.root_image().string();
  SBX_CHECK(vm::create_overlay(paths.disk(), options), "making the template's disk");

  vm::StartSpec start;
  start.machine.purpose = vm::Purpose::kTemplate;
  start.machine.accelerator = spec.accelerator;
  start.machine.qemu_major = 0;
  start.machine.cpus = spec.cpus;
  start.machine.memory_mib = spec.memory_mib;
  start.disks = {{paths.disk()}, {spec.root_image(), vm::DiskFormat::kRaw}};
  start.ram = paths.ram();
  start.kernel = spec.kernel();
  start.initramfs = spec.initramfs();
  start.runtime_folder = spec.runtime_folder;
  start.console_fd = console_fd;
  return start;
}

wire::Awaitable<Result<void>> save(const LaunchSpec& spec, vm::VirtualMachine& machine, GuestLink& guest) {
  const vm::TemplatePaths paths(spec.template_folder);
  SBX_CO_CHECK(co_await guest.call("POST", "/drop-caches", json::object(), std::chrono::seconds(60)),
               "dropping the guest's caches");
  SBX_CO_CHECK(co_await guest.call("POST", "/freeze", json::object()), "freezing the guest");
  guest.disconnect();  // no session may be open in a template
  SBX_CO_CHECK(co_await machine.pause(), "pausing");
  SBX_CO_CHECK(co_await machine.save_template_state(paths.state()), "saving the device state");
  SBX_CO_CHECK(co_await machine.quit(), "ending QEMU");
  co_return Result<void>{};
}

}  // namespace

wire::Awaitable<Result<std::int64_t>> build_template(const LaunchSpec& spec) {
  const vm::TemplatePaths paths(spec.template_folder);
  const auto console_path = spec.runtime_folder / "console.log";
  SBX_CO_TRY(auto key, template_key(spec.image_folder, spec.guest_binary, spec.accelerator, spec.cpus, spec.memory_mib),
             "naming the template");
  SBX_CO_TRY(auto console, open_file(console_path, O_CREAT | O_WRONLY | O_TRUNC | O_APPEND), "opening the console log");
  SBX_CO_TRY(auto start, prepare(spec, console.get()), "preparing the template");
  const auto began = std::chrono::steady_clock::now();
  SBX_CO_TRY(auto machine, co_await vm::VirtualMachine::start(std::move(start)), "starting QEMU");
  spdlog::info("template: booting");

  GuestLink guest(co_await asio::this_coro::executor, spec.runtime_folder);
  auto connected = co_await guest.connect(kBootDeadline);
  if (!connected) {
    connected.error().message += "; the guest's console ends with:\n" + console_tail(console_path);
    co_return std::unexpected(std::move(connected.error()).while_doing("waiting for the guest to boot"));
  }
  spdlog::info("template: the guest is up, waiting for Docker");
  SBX_CO_CHECK(co_await wait_for_docker(guest), "warming the template");
  const auto boot_ms =
      std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::steady_clock::now() - began).count();
  SBX_CO_CHECK(co_await save(spec, *machine, guest), "saving the template");

  vm::TemplateManifest manifest;
  manifest.id = vm::template_id(key);
  manifest.key = std::move(key);
  manifest.created_at = rfc3339(std::chrono::system_clock::now());
  std::error_code ignored;
  manifest.state_bytes = std::filesystem::file_size(paths.state(), ignored);
  manifest.boot_ms = boot_ms;
  SBX_CO_CHECK(vm::seal_template(paths, manifest), "sealing the template");
  co_return boot_ms;
}

}  // namespace sbx::keeper
