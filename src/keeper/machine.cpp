#include "keeper/machine.h"

#include <spdlog/spdlog.h>

#include <boost/asio/this_coro.hpp>

namespace sbx::keeper {

using wire::Awaitable;
using Machine = std::unique_ptr<vm::MachineControl>;

namespace {

constexpr std::chrono::seconds kLoadDeadline{20};
constexpr std::chrono::seconds kMemoryDeadline{120};

Awaitable<Result<void>> load(const WorkerSpec& spec, UniqueFd state, vm::MachineControl& machine,
                             SupervisorClient& supervisor) {
  SBX_CO_CHECK(co_await machine.greet(), "starting QEMU");
  if (spec.mode == LaunchMode::kClone) {
    SBX_CO_CHECK(co_await machine.load_stream(state.get(), true, kLoadDeadline), "loading the template's state");
  } else if (spec.mode == LaunchMode::kResume) {
    SBX_CO_CHECK(co_await machine.load_stream(state.get(), false, kMemoryDeadline), "loading the memory image");
    state.reset();
    SBX_CO_CHECK(co_await supervisor.ask(Request::kMemoryLoaded), "using the memory image up");
  }
  co_return Result<void>{};
}

}  // namespace

Awaitable<Result<Machine>> start_machine(WorkerSpec& spec, UniqueFd qmp, UniqueFd state, SupervisorClient& supervisor) {
  const auto executor = co_await boost::asio::this_coro::executor;
  auto machine = std::make_unique<vm::MachineControl>(executor, std::move(qmp), spec.qemu_major);
  auto loaded = co_await load(spec, std::move(state), *machine, supervisor);
  if (!loaded && spec.mode == LaunchMode::kResume) {
    spdlog::warn("the memory image does not load, booting from the disk: {}", loaded.error().describe());
    SBX_CO_TRY(auto other, co_await supervisor.ask(Request::kBootInstead), "booting from the disk");
    spec.mode = LaunchMode::kBoot;
    supervisor.forget_machine_end();
    machine = std::make_unique<vm::MachineControl>(executor, std::move(other), spec.qemu_major);
    loaded = co_await machine->greet();
  }
  if (!loaded) co_return std::unexpected(std::move(loaded.error()));
  const bool paused = spec.mode == LaunchMode::kClone || spec.mode == LaunchMode::kResume;
  if (paused) SBX_CO_CHECK(co_await machine->resume(), "letting the guest run");
  co_return machine;
}

Awaitable<Result<void>> stop_with_memory(vm::MachineControl& machine, SupervisorClient& supervisor) {
  Result<void> saved = co_await machine.pause();
  if (saved) {
    auto stream = co_await supervisor.ask(Request::kSaveMemory);
    if (stream) {
      saved = co_await machine.save_stream(stream->get(), false, kMemoryDeadline);
      stream->reset();  // QEMU's copy is closed too: now the filter sees the end
    } else {
      saved = std::unexpected(std::move(stream.error()));
    }
  }
  if (saved) {
    co_await machine.quit();
    auto kept = co_await supervisor.ask(Request::kCommitMemory);
    if (!kept) saved = std::unexpected(std::move(kept.error()));
  }
  if (!saved) (void)co_await supervisor.ask(Request::kEndMachine);
  co_return saved;
}

}  // namespace sbx::keeper
