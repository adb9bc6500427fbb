#include "keeper/template_builder.h"

#include <spdlog/spdlog.h>

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>

#include "keeper/guest_link.h"
#include "keeper/machine.h"
#include "keeper/template_key.h"
#include "wire/length_prefix.h"

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

// An identity of the same shape as those that clones get, and shorter in every part.
json placeholder_identity() {
  json identity = json::object();
  identity["hostname"] = "sandbox";
  identity["machine_id"] = std::string(32, '0');
  identity["sandbox_id"] = "0";
  identity["environment"] = json::array();
  identity["authorities"] = json::array({"\n"});
  return identity;
}

std::string rehearsed_command() {
  json head = json::object();
  head["id"] = "rehearsal";
  head["argv"] = json::array({"/bin/true"});
  head["cwd"] = "/";
  return wire::length_prefixed(head.dump());
}

wire::Awaitable<Result<void>> run_command(GuestLink& guest) {
  wire::Http2Head head;
  head.method = "POST";
  head.path = "/exec";
  SBX_CO_TRY(auto opened, co_await guest.open(std::move(head)), "running a command");
  SBX_CO_CHECK(co_await opened.stream->write(rehearsed_command()), "running a command");
  SBX_CO_CHECK(co_await opened.stream->finish(), "running a command");
  SBX_CO_CHECK(co_await wire::read_body(*opened.stream, 64U << 10U), "running a command");
  co_return Result<void>{};
}

// What every clone begins with is done once before the template is saved. The files it writes then exist and have
// their blocks, what it reads is in the page cache, what it allocates comes from slabs that are there: each clone runs
// through less of the kernel, all of which it would have to translate anew under emulation.
wire::Awaitable<Result<void>> rehearse(GuestLink& guest) {
  SBX_CO_CHECK(co_await guest.call("POST", "/identity", placeholder_identity()), "rehearsing the identity");
  SBX_CO_CHECK(co_await guest.call("POST", "/thaw", json::object()), "rehearsing the thaw");
  SBX_CO_CHECK(co_await run_command(guest), "rehearsing a command");
  co_return Result<void>{};
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
  SBX_CO_CHECK(co_await rehearse(guest), "rehearsing a start");
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
