#include "keeper/rehearsal.h"

#include "wire/length_prefix.h"

namespace sbx::keeper {

using nlohmann::json;

namespace {

// Outside coroutines: GCC 12 cannot keep the arrays behind braced initialisers across a co_await.
json placeholder_identity(const std::string& authority) {
  json identity = json::object();
  identity["hostname"] = "sandbox";
  identity["machine_id"] = std::string(32, '0');
  identity["sandbox_id"] = "0";
  identity["environment"] = json::array();
  identity["authorities"] = json::array({authority});
  return identity;
}

std::string rehearsed_command(const std::string& folder) {
  json head = json::object();
  head["id"] = "rehearsal";
  head["argv"] = json::array({"/bin/true"});
  head["cwd"] = folder;
  return wire::length_prefixed(head.dump());
}

}  // namespace

wire::Awaitable<Result<void>> rehearse_identity(GuestLink& guest, std::string authority) {
  SBX_CO_CHECK(co_await guest.call("POST", "/identity", placeholder_identity(authority)), "rehearsing the identity");
  co_return Result<void>{};
}

wire::Awaitable<Result<void>> rehearse_command(GuestLink& guest, std::string folder) {
  SBX_CO_CHECK(co_await guest.call("POST", "/thaw", json::object()), "rehearsing the thaw");
  wire::Http2Head head;
  head.method = "POST";
  head.path = "/exec";
  SBX_CO_TRY(auto opened, co_await guest.open(std::move(head)), "rehearsing a command");
  SBX_CO_CHECK(co_await opened.stream->write(rehearsed_command(folder)), "rehearsing a command");
  SBX_CO_CHECK(co_await opened.stream->finish(), "rehearsing a command");
  SBX_CO_CHECK(co_await wire::read_body(*opened.stream, 64U << 10U), "rehearsing a command");
  co_return Result<void>{};
}

}  // namespace sbx::keeper
