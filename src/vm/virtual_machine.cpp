#include "vm/virtual_machine.h"

#include <fcntl.h>

#include <boost/asio/this_coro.hpp>

#include "base/file.h"
#include "vm/memory_image.h"
#include "vm/process_exit.h"

namespace sbx::vm {

namespace fs = std::filesystem;

Awaitable<Result<std::unique_ptr<VirtualMachine>>> VirtualMachine::start(StartSpec spec) {
  SBX_CO_TRY(auto process, MachineProcess::start(std::move(spec)), "starting a VM");
  std::unique_ptr<VirtualMachine> vm(new VirtualMachine(std::move(process)));
  const auto executor = co_await boost::asio::this_coro::executor;
  vm->control_ =
      std::make_unique<MachineControl>(executor, vm->process_.take_qmp(), vm->process_.spec().machine.qemu_major);
  auto greeted = co_await vm->control_->greet(vm->process_.spec().deadline);
  vm->process_.forget_ram_name();
  if (!greeted) {
    Error error = std::move(greeted).error();
    error.message += "; it said: " + vm->log();
    co_return std::unexpected(std::move(error).while_doing("starting QEMU"));
  }
  co_return std::move(vm);
}

Awaitable<Result<void>> VirtualMachine::load_stream(int fd, bool ignore_shared, Duration deadline) {
  auto loaded = co_await control_->load_stream(fd, ignore_shared, deadline);
  if (!loaded) loaded.error().message += "; QEMU said: " + log();
  co_return loaded;
}

Awaitable<Result<void>> VirtualMachine::load_state(fs::path state, Duration deadline) {
  SBX_CO_TRY(const auto file, open_file(state, O_RDONLY), "opening the template's state");
  co_return co_await load_stream(file.get(), true, deadline);
}

Awaitable<Result<void>> VirtualMachine::save_template_state(fs::path state, Duration deadline) {
  SBX_CO_TRY(const auto file, open_file(state, O_WRONLY | O_CREAT | O_EXCL), "creating the template's state");
  SBX_CO_CHECK(co_await control_->save_stream(file.get(), true, deadline), "saving the template");
  co_return process_.keep_template_ram();
}

Awaitable<Result<void>> VirtualMachine::save_full_stream(int fd, Duration deadline) {
  co_return co_await control_->save_stream(fd, false, deadline);
}

Awaitable<Result<void>> VirtualMachine::save_memory_image(fs::path image, Duration deadline) {
  SBX_CO_TRY(auto saving, start_saving_memory(process_.spec(), image), "saving memory");
  auto done = co_await control_->save_stream(saving.stream.get(), false, deadline);
  saving.stream.reset();
  if (!done) co_return done;
  (void)co_await process_ended(saving.filter.pidfd(), deadline);
  co_return finish_saving_memory(saving, std::chrono::milliseconds(0));
}

Awaitable<Result<void>> VirtualMachine::load_memory_image(fs::path image, Duration deadline) {
  SBX_CO_TRY(auto loading, start_loading_memory(image, process_.spec().uid), "loading memory");
  SBX_CO_CHECK(co_await load_stream(loading.stream.get(), false, deadline), "loading memory");
  loading.stream.reset();
  (void)co_await process_ended(loading.filter.pidfd(), deadline);
  co_return finish_loading_memory(loading, std::chrono::milliseconds(0));
}

Awaitable<Result<ExitStatus>> VirtualMachine::exited() {
  if (process_.running()) (void)co_await process_ended(process_.pidfd(), Duration::max());
  co_return process_.wait();
}

Awaitable<Result<ExitStatus>> VirtualMachine::quit(Duration deadline) {
  if (!process_.running()) co_return process_.wait();
  co_await control_->quit(deadline);
  (void)co_await process_ended(process_.pidfd(), deadline);
  co_return process_.wait_or_kill(std::chrono::milliseconds(0));
}

}  // namespace sbx::vm
