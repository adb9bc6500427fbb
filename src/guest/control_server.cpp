#include "guest/control_server.h"

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <nlohmann/json.hpp>

#include "guest/exec_session.h"
#include "guest/forward.h"
#include "guest/identity.h"
#include "guest/power.h"
#include "guest/warm_up.h"

namespace sbx::guest {
namespace {

using namespace std::chrono_literals;
using nlohmann::json;
using Stream = std::shared_ptr<wire::Http2Stream>;

constexpr auto kFreezeDeadline = 10'000ms;
constexpr auto kServicesDeadline = 1000ms;
constexpr std::size_t kMaxBody = 4U << 20U;

std::string status_json(const Guest& guest) {
  return json{{"docker", guest.docker.state_word()},
              {"frozen", guest.cgroups.frozen()},
              {"execs", guest.execs.size()},
              {"boot_ms", guest.boot_ms}}
      .dump();
}

Result<json> parse_object(std::string_view text) {
  auto value = json::parse(text.empty() ? "{}" : text, nullptr, false);
  if (!value.is_object()) return fail(ErrorCode::kInvalid, "the body is not a JSON object");
  return value;
}

// A whole number in [0, limit]; `fallback` if the member is missing.
Result<unsigned> number_in(const json& object, const char* member, unsigned limit, unsigned fallback) {
  const auto found = object.find(member);
  if (found == object.end()) return fallback;
  if (!found->is_number_integer() || found->get<std::int64_t>() < 0 || found->get<std::int64_t>() > limit) {
    return fail(ErrorCode::kInvalid, std::string(member) + " is out of range");
  }
  return found->get<unsigned>();
}

Result<void> set_identity(Guest& guest, std::string_view body) {
  auto identity = SBX_TRY(parse_identity(body), "reading the identity");
  SBX_CHECK(apply_identity(identity), "taking on an identity");
  SBX_CHECK(guest.agent_relay.offer(identity.ssh_agent), "taking on an identity");
  guest.environment = std::move(identity.environment);
  return {};
}

// After the machine stood still: CLOCK_REALTIME stood with it. CLOCK_MONOTONIC goes on from where it was, so timers
// that were running keep what they had left.
Result<void> put_clock_right(std::string_view body) {
  const auto object = SBX_TRY(parse_object(body), "reading the time");
  const auto time = object.find("time_ns");
  if (time == object.end() || !time->is_number_integer()) return fail(ErrorCode::kInvalid, "time_ns is missing");
  return set_clock(time->get<std::int64_t>());
}

// POST /exec/ID/signal and /exec/ID/resize
Result<void> act_on_exec(Guest& guest, std::string_view path, std::string_view body) {
  const auto slash = path.find('/');
  const auto found = guest.execs.find(std::string(path.substr(0, slash)));
  const auto verb = slash == std::string_view::npos ? std::string_view() : path.substr(slash + 1);
  const auto object = SBX_TRY(parse_object(body), "reading the request");
  if (found == guest.execs.end())
    return fail(ErrorCode::kNotFound, "there is no exec " + std::string(path.substr(0, slash)));
  if (verb == "signal") {
    return found->second->signal(static_cast<int>(SBX_TRY(number_in(object, "signal", 64, 15), "signalling")));
  }
  if (verb == "resize") {
    const auto rows = SBX_TRY(number_in(object, "rows", 0xffff, 24), "resizing");
    const auto cols = SBX_TRY(number_in(object, "cols", 0xffff, 80), "resizing");
    return found->second->resize(static_cast<unsigned short>(rows), static_cast<unsigned short>(cols));
  }
  return fail(ErrorCode::kNotFound, "no such route");
}

Awaitable<Result<void>> quiesce(Guest& guest, std::string_view body) {
  auto object = parse_object(body);
  if (!object) co_return std::unexpected(std::move(object).error());
  const auto grace = number_in(*object, "grace_ms", 600'000, 500);
  if (!grace) co_return std::unexpected(grace.error());
  auto frozen = co_await guest.cgroups.freeze_services(kServicesDeadline);
  if (!frozen) co_return frozen;
  auto ended = co_await guest.cgroups.end_user_processes(std::chrono::milliseconds(*grace));
  co_return ended;
}

Awaitable<Result<void>> thaw(Guest& guest) {
  Cgroups::ThawOptions options;
  options.services = !guest.docker.sleep_until_used();
  auto thawed = co_await guest.cgroups.thaw(kFreezeDeadline, options);
  co_return thawed;
}

Awaitable<Result<void>> mount(Guest& guest, std::string_view body) {
  auto workspaces = parse_workspaces(body);
  if (!workspaces) co_return std::unexpected(std::move(workspaces).error());
  auto mounted = co_await guest.workspaces.mount(*std::move(workspaces));
  co_return mounted;
}

Awaitable<Result<void>> change_mounts(Guest& guest, std::string_view body, bool add) {
  auto workspaces = parse_workspaces(body);
  if (!workspaces) co_return std::unexpected(std::move(workspaces).error());
  auto object = parse_object(body);
  if (!object) co_return std::unexpected(std::move(object).error());
  const auto force = object->find("force");
  Workspaces::RemoveOptions options;
  options.force = force != object->end() && force->is_boolean() && force->get<bool>();
  Result<void> changed;
  if (add)
    changed = co_await guest.workspaces.add(*std::move(workspaces));
  else
    changed = co_await guest.workspaces.remove(*std::move(workspaces), options);
  co_return changed;
}

Awaitable<Result<void>> post(Guest& guest, const std::string& path, const std::string& body) {
  Result<void> result;
  if (path == "/identity") {
    result = set_identity(guest, body);
  } else if (path == "/clock") {
    result = put_clock_right(body);
  } else if (path == "/freeze") {
    result = co_await guest.cgroups.freeze(kFreezeDeadline);
  } else if (path == "/thaw") {
    result = co_await thaw(guest);
  } else if (path == "/mount") {
    result = co_await mount(guest, body);
  } else if (path == "/mount/add" || path == "/mount/remove") {
    result = co_await change_mounts(guest, body, path == "/mount/add");
  } else if (path == "/unmount") {
    result = co_await guest.workspaces.unmount();
  } else if (path == "/quiesce") {
    result = co_await quiesce(guest, body);
  } else if (path == "/drop-caches") {
    result = drop_caches();
  } else if (path == "/drop-new-caches") {
    result = drop_new_caches(guest);
  } else if (path == "/warm-up") {
    result = co_await warm_up(guest, body);
  } else if (path == "/shutdown") {
    boost::asio::co_spawn(guest.executor, shut_down(guest), boost::asio::detached);
  } else if (path.starts_with("/exec/")) {
    result = act_on_exec(guest, std::string_view(path).substr(6), body);
  } else {
    result = fail(ErrorCode::kNotFound, "no such route: POST " + path);
  }
  co_return result;
}

}  // namespace

Awaitable<void> handle_control_request(Guest& guest, Stream stream) {
  const std::string method = stream->request().method;
  const std::string path = stream->request().path;
  if (method == "POST" && path == "/exec") {
    co_await serve_exec(guest, stream);
    co_return;
  }
  if (method == "CONNECT") {
    co_await serve_forward(stream);
    co_return;
  }
  if (method == "GET" && path == "/status") {
    co_await wire::send_json(*stream, 200, status_json(guest));
    co_return;
  }
  if (method == "GET" && path == "/quiet") {
    co_await guest.activity.wait_until_quiet();
    co_await wire::send_json(*stream, 200, "{}");
    co_return;
  }
  if (method == "GET" && path == "/docker") {
    co_await guest.docker.settled();
    co_await wire::send_json(*stream, 200, status_json(guest));
    co_return;
  }
  const auto body = co_await wire::read_body(*stream, kMaxBody);
  Result<void> result;
  if (!body) {
    result = std::unexpected(body.error());
  } else if (method != "POST") {
    result = fail(ErrorCode::kNotFound, "no such route: " + method + " " + path);
  } else {
    result = co_await post(guest, path, *body);
  }
  if (!result) {
    co_await wire::send_error(*stream, result.error());
  } else {
    co_await wire::send_json(*stream, 200, "{}");
  }
}

}  // namespace sbx::guest
