// The daemon's route table: which request is answered by what. Knows no HTTP library; api/openapi.yaml is the contract
// and a test compares the two. One event loop.
#pragma once

#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "base/locked_string.h"
#include "sandbox/lifecycle.h"

namespace sbx::api {

using sandbox::Awaitable;
using sandbox::Progress;

struct Request {
  std::string method;
  std::string path;                           // without the query
  std::map<std::string, std::string> query;   // decoded
  std::map<std::string, std::string> params;  // from the pattern's {name} parts, decoded
  nlohmann::json body;                        // null if there was none
  LockedString secret;                        // the body of a kSecret route, instead
};

// What the daemon's handlers work with. Outlives every request.
struct Daemon {
  sandbox::Lifecycle& lifecycle;
  std::int64_t started_ms = 0;
  std::filesystem::path programs;
  std::function<void()> stop;  // ends the daemon once the answer is out
};

using Handler = Awaitable<Result<nlohmann::json>> (*)(Daemon&, Request, Progress);

// kAttach: a WebSocket; kLogs: a body of stdcopy frames; kWait: JSON that may take for ever, so that a client that
// hangs up must be noticed; kSecret: the body goes into locked memory, unparsed, and the answer is JSON; kPolicyLog:
// JSON lines without end. The server has code of its own for these.
enum class Kind { kJson, kAttach, kLogs, kWait, kSecret, kPolicyLog };

struct Route {
  std::string_view method;
  std::string_view pattern;  // "/v1/sandboxes/{name}"
  Kind kind = Kind::kJson;
  Handler handler = nullptr;
};

const std::vector<Route>& route_table();

// The route of request.method and request.path, with request.params filled in. kNotFound, or kInvalid if the path
// exists with other methods only.
Result<const Route*> find_route(Request& request);

// "a%20b" -> "a b"; '+' stays. nullopt-like: a broken escape is kept as it is.
std::string percent_decode(std::string_view text);
// Splits "/path?a=1&b" into request.path and request.query.
void parse_target(std::string_view target, Request& request);

}  // namespace sbx::api
