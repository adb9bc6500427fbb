#include "keeper/template_builder.h"

#include <spdlog/spdlog.h>

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>

#include "keeper/guest_link.h"
#include "keeper/machine.h"
#include "keeper/rehearsal.h"
#include "keeper/template_key.h"

namespace sbx::keeper {

namespace asio = boost::asio;
using nlohmann::json;

namespace {

constexpr std::chrono::seconds kBootDeadline{180};
constexpr std::chrono::seconds kDockerDeadline{300};
constexpr std::chrono::seconds kSaveDeadline{60};
// What the guest does about the end of a session, and what its kernel has put off, is done in this time, or each clone
// would do it first. Nothing breaks if some of it is left.
constexpr std::chrono::milliseconds kSettle{2000};

// Outside coroutines: GCC 12 cannot keep the arrays behind braced initialisers across a co_await.
json warm_up_request() {
  json request = json::object();
  request["argv"] = {"sh", "-c", kWarmUp};
  return request;
}

wire::Awaitable<void> pause_for(std::chrono::milliseconds time) {
  asio::steady_timer timer(co_await asio::this_coro::executor, time);
  (void)co_await timer.async_wait(asio::as_tuple(asio::use_awaitable));
}

wire::Awaitable<Result<void>> wait_for_docker(GuestLink& guest) {
  SBX_CO_TRY(const json status, co_await guest.call("GET", "/docker", nullptr, kDockerDeadline), "waiting for dockerd");
  const auto docker = status.value("docker", "");
  if (docker != "ready" && docker != "off") {
    co_return fail(ErrorCode::kUnavailable, "dockerd does not start in the guest");
  }
  co_return Result<void>{};
}

wire::Awaitable<Result<void>> save(vm::MachineControl& machine, GuestLink& guest, UniqueFd state) {
  SBX_CO_CHECK(co_await guest.call("POST", "/drop-caches", json::object(), std::chrono::seconds(60)),
               "dropping the guest's caches");
  SBX_CO_CHECK(co_await guest.call("POST", "/warm-up", warm_up_request(), std::chrono::seconds(60)),
               "warming the guest up");
  SBX_CO_CHECK(co_await rehearse_identity(guest, "\n"), "rehearsing a start");
  SBX_CO_CHECK(co_await rehearse_command(guest, "/"), "rehearsing a start");
  SBX_CO_CHECK(co_await guest.call("POST", "/freeze", json::object()), "freezing the guest");
  guest.disconnect();  // no session may be open in a template
  co_await pause_for(kSettle);
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
