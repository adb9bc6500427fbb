#include "keeper/template_builder.h"

#include <spdlog/spdlog.h>

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>

#include "keeper/guest_link.h"
#include "keeper/machine.h"

namespace sbx::keeper {

namespace asio = boost::asio;
using nlohmann::json;

namespace {

constexpr std::chrono::seconds kBootDeadline{180};
constexpr std::chrono::seconds kDockerDeadline{300};
constexpr std::chrono::seconds kSaveDeadline{60};

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

wire::Awaitable<Result<void>> save(vm::MachineControl& machine, GuestLink& guest, UniqueFd state) {
  SBX_CO_CHECK(co_await guest.call("POST", "/drop-caches", json::object(), std::chrono::seconds(60)),
               "dropping the guest's caches");
  SBX_CO_CHECK(co_await guest.call("POST", "/freeze", json::object()), "freezing the guest");
  guest.disconnect();  // no session may be open in a template
  SBX_CO_CHECK(co_await machine.pause(), "pausing");
  SBX_CO_CHECK(co_await machine.save_stream(state.get(), true, kSaveDeadline), "saving the device state");
  co_await machine.quit();
  co_return Result<void>{};
}

}  // namespace

wire::Awaitable<Result<std::int64_t>> build_template(WorkerSpec spec, UniqueFd qmp, UniqueFd state,
                                                     SupervisorClient& supervisor) {
  const auto began = std::chrono::steady_clock::now();
  SBX_CO_TRY(auto machine, co_await start_machine(spec, std::move(qmp), UniqueFd(), supervisor), "starting QEMU");
  spdlog::info("template: booting");

  GuestLink guest(co_await asio::this_coro::executor,
                  [&supervisor] { return supervisor.ask(Request::kConnectControl); });
  SBX_CO_CHECK(co_await guest.connect(kBootDeadline), "waiting for the guest to boot");
  spdlog::info("template: the guest is up, waiting for Docker");
  SBX_CO_CHECK(co_await wait_for_docker(guest), "warming the template");
  const auto boot_ms =
      std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::steady_clock::now() - began).count();
  SBX_CO_CHECK(co_await save(*machine, guest, std::move(state)), "saving the template");
  SBX_CO_CHECK(co_await supervisor.ask(Request::kSealTemplate, static_cast<std::int32_t>(boot_ms)),
               "sealing the template");
  co_return boot_ms;
}

}  // namespace sbx::keeper
