// Clone mode: what is done in a sandbox right after its first start.
#include <chrono>

#include "base/random.h"
#include "sandbox/json_fields.h"
#include "sandbox/lifecycle.h"
#include "wire/length_prefix.h"

namespace sbx::sandbox {
namespace {

using nlohmann::json;
using namespace std::chrono_literals;

constexpr auto kPlaceDeadline = 30s;
// A repository of some gigabytes under software emulation.
constexpr auto kCloneDeadline = 3h;

json head_of(std::vector<std::string> argv, const char* user, const std::string& id) {
  return {{"id", id}, {"argv", std::move(argv)}, {"user", user}, {"cwd", "/"}, {"stdin", false}, {"detach", true}};
}

}  // namespace

// Runs a command of ours in a sandbox that has just come up; its exit status. What it prints is nobody's: the daemon
// reads no output of a guest.
Awaitable<Result<int>> Lifecycle::run_in_sandbox(std::string id, std::vector<std::string> argv, const char* user,
                                                 std::chrono::milliseconds deadline) {
  SBX_CO_TRY(auto client, client_of(id), "reaching the sandbox");
  const std::string exec = id.substr(0, 8) + random_hex(8);
  SBX_CO_TRY(auto stream, client->open("POST", "/exec", false), "reaching the sandbox");
  SBX_CO_CHECK(co_await stream->write(wire::length_prefixed(dump(head_of(std::move(argv), user, exec)))),
               "sending a command");
  SBX_CO_CHECK(co_await stream->finish(), "sending a command");
  SBX_CO_TRY(const auto response, co_await stream->response(), "starting a command");
  if (response.status >= 400) co_return fail(ErrorCode::kUnavailable, "the sandbox could not start a command");
  SBX_CO_TRY(const auto status, co_await client->call("GET", "/exec/" + exec + "/wait", nullptr, deadline),
             "waiting for a command");
  co_return static_cast<int>(int_field(status, "exit_code", 255));
}

Awaitable<Result<void>> Lifecycle::place_clone_again(const store::Sandbox& row) {
  auto command = clone_place_again_command(row.clone);
  if (!command) co_return Result<void>{};
  SBX_CO_TRY(const int placed, co_await run_in_sandbox(row.id, std::move(*command), "root", kPlaceDeadline),
             "putting the clone into its place");
  if (placed != 0) {
    co_return fail(ErrorCode::kInternal, "the clone could not be put into its place, " + row.clone +
                                             ", which is empty now; it is in /var/lib/sbx-clone of the sandbox, if it "
                                             "was not removed there");
  }
  co_return Result<void>{};
}

Awaitable<Result<void>> Lifecycle::make_clone(std::string id, ClonePlan plan, Progress progress) {
  progress("Cloning into " + plan.target + " of the sandbox");
  SBX_CO_TRY(const int placed, co_await run_in_sandbox(id, clone_place_command(plan), "root", kPlaceDeadline),
             "making the clone");
  SBX_CO_CHECK(clone_outcome(placed, plan), "making the clone");
  SBX_CO_TRY(const int cloned, co_await run_in_sandbox(id, clone_command(plan), "", kCloneDeadline),
             "making the clone");
  co_return clone_outcome(cloned, plan);
}

}  // namespace sbx::sandbox
