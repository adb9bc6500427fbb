#include "vm/accelerator.h"

#include <fcntl.h>
#include <poll.h>

#include <cstdlib>
#include <nlohmann/json.hpp>

#include "base/command.h"
#include "base/file.h"
#include "vm/jail.h"

namespace sbx::vm {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

// What a Linux kernel says that has come up, set up its memory, its clocks and its drivers, and has no root disk.
constexpr std::string_view kMarker = "Unable to mount root fs";

AcceleratorVerdict tcg(std::string reason) { return {Accelerator::kTcg, std::move(reason), false}; }

AcceleratorVerdict decide(const AcceleratorHost& host) {
  std::error_code ignored;
  if (!fs::exists(host.modules / "kvm_intel", ignored) && !fs::exists(host.modules / "kvm_amd", ignored)) {
    return tcg("software emulation: neither kvm_intel nor kvm_amd is loaded");
  }
  const auto device = open_file(host.device, O_RDWR);
  if (!device) return tcg("software emulation: " + device.error().describe());
  if (!host.canary) return tcg("software emulation: there is no kernel to try KVM with yet");
  const auto console = host.canary();
  if (!console) return tcg("software emulation: a trial boot under KVM failed: " + console.error().describe());
  if (console->find(kMarker) == std::string::npos) {
    return tcg("software emulation: a trial boot under KVM did not get as far as its root disk");
  }
  return {Accelerator::kKvm, "KVM: a trial boot succeeded", false};
}

Result<AcceleratorVerdict> from_cache(const fs::path& cache, const std::string& boot_id) {
  const auto text = SBX_TRY(read_file(cache, 4096), "reading the accelerator's verdict");
  const json document = json::parse(text, nullptr, false);
  if (!document.is_object() || document.value("boot_id", "") != boot_id || boot_id.empty()) {
    return fail(ErrorCode::kNotFound, "no verdict for this boot");
  }
  const auto accelerator = SBX_TRY(accelerator_from(document.value("accelerator", "")), "reading the verdict");
  return AcceleratorVerdict{accelerator, document.value("reason", ""), true};
}

// Everything up to the end of the process or the deadline, bounded.
std::string read_until(int fd, std::chrono::steady_clock::time_point end, bool& timed_out) {
  std::string out;
  char chunk[4096];
  while (out.size() < (256U << 10U)) {
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(end - std::chrono::steady_clock::now());
    pollfd state{fd, POLLIN, 0};
    const int ready = left.count() > 0 ? ::poll(&state, 1, static_cast<int>(left.count())) : 0;
    if (ready < 0 && errno == EINTR) continue;
    if (ready <= 0) {
      timed_out = true;
      return out;
    }
    const ssize_t n = ::read(fd, chunk, sizeof chunk);
    if (n <= 0) return out;
    out.append(chunk, static_cast<std::size_t>(n));
    if (out.find(kMarker) != std::string::npos) return out;
  }
  return out;
}

}  // namespace

std::function<Result<std::string>()> canary_with(fs::path kernel, std::chrono::milliseconds deadline,
                                                 std::string qemu) {
  return [kernel = std::move(kernel), deadline, qemu = std::move(qemu)]() -> Result<std::string> {
    JailSpec jail;
    jail.argv = {qemu,
                 "-nodefaults",
                 "-no-user-config",
                 "-display",
                 "none",
                 "-M",
                 "q35",
                 "-cpu",
                 "host",
                 "-accel",
                 "kvm",
                 "-m",
                 "256M",
                 "-no-reboot",
                 "-serial",
                 "stdio",
                 "-kernel",
                 "/kernel",
                 "-append",
                 "console=ttyS0 panic=-1 no_timer_check tsc=reliable"};
    jail.binds = {{kernel, "/kernel"}, {"/dev/kvm", "/dev/kvm", BindMode::kDevice}};
    int console[2];
    if (::pipe2(console, O_CLOEXEC) != 0) return fail_errno("making a pipe", errno);
    const UniqueFd read_end(console[0]);
    UniqueFd write_end(console[1]);
    const auto end = std::chrono::steady_clock::now() + deadline;
    const auto child =
        SBX_TRY(jailed(jail).stdout_to(write_end.get()).stderr_to(write_end.get()).start(), "starting the canary");
    write_end.reset();
    bool timed_out = false;
    std::string text = read_until(read_end.get(), end, timed_out);
    if (timed_out) {
      return fail(ErrorCode::kTimeout, "nothing within " + std::to_string(deadline.count()) + " ms");
    }
    return text;
  };
}

AcceleratorVerdict probe_accelerator(const AcceleratorHost& host, const fs::path& cache) {
  if (const char* forced = std::getenv("SBX_ACCELERATOR"); forced != nullptr && std::string_view(forced) == "tcg") {
    return tcg("software emulation: SBX_ACCELERATOR=tcg");
  }
  const std::string boot_id = read_file(host.boot_id, 128).value_or("");
  if (!cache.empty()) {
    if (auto known = from_cache(cache, boot_id)) return *known;
  }
  AcceleratorVerdict verdict = decide(host);
  // Without a kernel nothing was tried: ask again when there is one.
  if (!cache.empty() && host.canary) {
    json document = json::object();
    document["boot_id"] = boot_id;
    document["accelerator"] = to_string(verdict.accelerator);
    document["reason"] = verdict.reason;
    (void)write_file_atomically(cache, document.dump() + "\n");  // a cache that cannot be written costs time only
  }
  return verdict;
}

}  // namespace sbx::vm
