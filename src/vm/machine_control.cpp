#include "vm/machine_control.h"

#include <unistd.h>

#include <cerrno>

namespace sbx::vm {

using nlohmann::json;
using Clock = std::chrono::steady_clock;

namespace {

constexpr int kStateFdset = 91;
// How long one wait for an event lasts before the status is asked again: an event may have passed unseen.
constexpr auto kPoll = std::chrono::milliseconds(5);

}  // namespace

Awaitable<Result<void>> MachineControl::set_migration(bool ignore_shared) {
  json capabilities = json::array();
  for (const auto& [name, state] : {std::pair{"x-ignore-shared", ignore_shared}, std::pair{"events", true}}) {
    json capability = json::object();
    capability["capability"] = name;
    capability["state"] = state;
    capabilities.push_back(std::move(capability));
  }
  json arguments = json::object();
  arguments["capabilities"] = std::move(capabilities);
  auto answer = co_await qmp_.execute("migrate-set-capabilities", std::move(arguments));
  if (!answer) co_return std::unexpected(std::move(answer).error());
  co_return Result<void>{};
}

// Hands `fd` to QEMU and returns the address it has there. A file goes by a descriptor set from QEMU 9 on ("fd:" for
// files is deprecated since); pipes, and everything before, by name.
Awaitable<Result<std::string>> MachineControl::hand_over(int fd) {
  const bool pipe = ::lseek(fd, 0, SEEK_CUR) < 0 && errno == ESPIPE;
  json arguments = json::object();
  if (!pipe && qemu_major_ >= 9) {
    arguments["fdset-id"] = kStateFdset;
    SBX_CO_TRY(const json ignored, co_await qmp_.execute("add-fd", std::move(arguments), fd), "passing a file to QEMU");
    (void)ignored;
    co_return "file:/dev/fdset/" + std::to_string(kStateFdset);
  }
  arguments["fdname"] = "state";
  SBX_CO_TRY(const json ignored, co_await qmp_.execute("getfd", std::move(arguments), fd), "passing a file to QEMU");
  (void)ignored;
  co_return std::string("fd:state");
}

Awaitable<void> MachineControl::take_back() {
  json arguments = json::object();
  arguments["fdset-id"] = kStateFdset;
  auto ignored = co_await qmp_.execute("remove-fd", std::move(arguments));
  (void)ignored;  // there may be none: a pipe went by name
}

Awaitable<Result<void>> MachineControl::load_stream(int fd, bool ignore_shared, Duration deadline) {
  const auto end = Clock::now() + deadline;
  SBX_CO_CHECK(co_await set_migration(ignore_shared), "preparing to load");
  SBX_CO_TRY(auto uri, co_await hand_over(fd), "preparing to load");
  json arguments = json::object();
  arguments["uri"] = uri;
  SBX_CO_TRY(const json started, co_await qmp_.execute("migrate-incoming", std::move(arguments)), "loading");
  (void)started;
  while (true) {
    SBX_CO_TRY(const auto now, co_await status(), "loading a machine's state");
    if (now != "inmigrate") break;
    // A state for another CPU model loads for ever: only a deadline ends that.
    if (Clock::now() > end) co_return fail(ErrorCode::kTimeout, "QEMU did not load the state in time");
    auto ignored = co_await qmp_.wait_for_event(kPoll);
    (void)ignored;
  }
  co_await take_back();
  co_return Result<void>{};
}

Awaitable<Result<void>> MachineControl::save_stream(int fd, bool ignore_shared, Duration deadline) {
  const auto end = Clock::now() + deadline;
  SBX_CO_CHECK(co_await set_migration(ignore_shared), "preparing to save");
  json parameters = json::object();
  parameters["max-bandwidth"] = 100'000'000'000;  // the default is made for a network
  SBX_CO_TRY(const json set, co_await qmp_.execute("migrate-set-parameters", std::move(parameters)), "saving");
  (void)set;
  SBX_CO_TRY(auto uri, co_await hand_over(fd), "preparing to save");
  json arguments = json::object();
  arguments["uri"] = uri;
  SBX_CO_TRY(const json started, co_await qmp_.execute("migrate", std::move(arguments)), "saving");
  (void)started;
  while (true) {
    SBX_CO_TRY(const json answer, co_await qmp_.execute("query-migrate"), "saving");
    const auto found = answer.find("status");
    const std::string state = found != answer.end() && found->is_string() ? found->get<std::string>() : "";
    if (state == "completed") break;
    if (state == "failed" || state == "cancelled") {
      const auto reason = answer.find("error-desc");
      co_return fail(ErrorCode::kInternal,
                     "QEMU could not save the machine's state: " +
                         (reason != answer.end() && reason->is_string() ? reason->get<std::string>() : state));
    }
    if (Clock::now() > end) co_return fail(ErrorCode::kTimeout, "QEMU did not save the machine's state in time");
    auto ignored = co_await qmp_.wait_for_event(kPoll);
    (void)ignored;
  }
  co_await take_back();
  co_return Result<void>{};
}

Awaitable<Result<void>> MachineControl::resume() {
  auto answer = co_await qmp_.execute("cont");
  if (!answer) co_return std::unexpected(std::move(answer).error());
  co_return Result<void>{};
}

Awaitable<Result<void>> MachineControl::pause() {
  auto answer = co_await qmp_.execute("stop");
  if (!answer) co_return std::unexpected(std::move(answer).error());
  co_return Result<void>{};
}

Awaitable<Result<std::string>> MachineControl::status() {
  SBX_CO_TRY(const json answer, co_await qmp_.execute("query-status"), "asking for the VM's status");
  const auto found = answer.find("status");
  if (found == answer.end() || !found->is_string()) co_return fail(ErrorCode::kInvalid, "QEMU has no status");
  co_return found->get<std::string>();
}

Awaitable<void> MachineControl::quit(Duration deadline) {
  json none = json::object();
  auto ignored = co_await qmp_.execute("quit", std::move(none), -1, deadline);
  (void)ignored;
}

}  // namespace sbx::vm
