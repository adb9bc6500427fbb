#include "keeper/worker_spec.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>

#include "base/file.h"

namespace sbx::keeper {

using nlohmann::json;

Result<UniqueFd> write_worker_spec(const WorkerSpec& spec) {
  json document = workspaces_json(spec.workspaces);
  document["mode"] = static_cast<int>(spec.mode);
  document["sandbox_id"] = spec.sandbox_id;
  document["accelerator"] = vm::to_string(spec.accelerator);
  document["qemu_major"] = spec.qemu_major;
  document["spare"] = spec.spare;
  document["supervisor_pid"] = spec.supervisor_pid;
  document["identity"] = spec.identity;
  UniqueFd memory(::memfd_create("worker-spec", MFD_CLOEXEC));
  if (!memory.valid()) return fail_errno("memfd_create", errno);
  SBX_CHECK(write_all(memory.get(), document.dump(-1, ' ', false, json::error_handler_t::replace)), "writing it");
  if (::lseek(memory.get(), 0, SEEK_SET) != 0) return fail_errno("rewinding it", errno);
  return memory;
}

Result<WorkerSpec> read_worker_spec(int fd) {
  std::string text;
  char buffer[65536];
  for (ssize_t n = 0; (n = ::read(fd, buffer, sizeof buffer)) != 0;) {
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return fail_errno("reading the worker's spec", errno);
    text.append(buffer, static_cast<std::size_t>(n));
  }
  try {
    const auto document = json::parse(text);
    WorkerSpec spec;
    spec.mode = static_cast<LaunchMode>(document.at("mode").get<int>());
    spec.sandbox_id = document.at("sandbox_id").get<std::string>();
    spec.accelerator =
        SBX_TRY(vm::accelerator_from(document.at("accelerator").get<std::string>()), "reading the worker's spec");
    spec.qemu_major = document.at("qemu_major").get<int>();
    spec.supervisor_pid = document.at("supervisor_pid").get<pid_t>();
    spec.spare = document.at("spare").get<bool>();
    spec.identity = document.at("identity");
    spec.workspaces = workspaces_from(document.at("workspaces"));
    return spec;
  } catch (const json::exception& error) {
    return fail(ErrorCode::kInvalid, std::string("the worker's spec is malformed: ") + error.what());
  }
}

}  // namespace sbx::keeper
