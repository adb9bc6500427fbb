#include "api/http_server.h"

#include <fcntl.h>
#include <sys/socket.h>

#include <boost/asio/detached.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>
#include <boost/beast/websocket.hpp>
#include <cstdio>
#include <deque>

#include "api/exec_bridge.h"
#include "api/handlers.h"
#include "api/secret_body.h"
#include "sandbox/daemon_log.h"
#include "sandbox/json_fields.h"
#include "store/clock.h"
#include "wire/signal.h"

namespace sbx::api {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;
using nlohmann::json;
using sandbox::dump;
using Socket = asio::local::stream_protocol::socket;
using HttpRequest = http::request<http::string_body>;

namespace {

constexpr std::size_t kLargestBody = 4U << 20U;

auto into(boost::system::error_code& error) { return asio::redirect_error(asio::use_awaitable, error); }

json error_body(const Error& error) {
  json body;
  body["error"] = {{"code", to_string(error.code)}, {"message", error.message}};
  return body;
}

Awaitable<bool> send_json(Socket& socket, const HttpRequest& request, int status, const json& body) {
  http::response<http::string_body> response(static_cast<http::status>(status), request.version());
  response.set(http::field::content_type, "application/json");
  response.keep_alive(request.keep_alive());
  response.body() = dump(body) + "\n";
  response.prepare_payload();
  boost::system::error_code error;
  co_await http::async_write(socket, response, into(error));
  co_return !error && request.keep_alive();
}

// The lines of one NDJSON answer, filled by the handler and emptied by the connection.
struct Lines {
  explicit Lines(const asio::any_io_executor& executor) : changed(executor) {}
  std::deque<std::string> waiting;
  bool done = false;
  wire::Signal changed;
  void push(const json& line) {
    waiting.push_back(dump(line) + "\n");
    changed.notify();
  }
};

Awaitable<void> run_handler(const Route* route, Daemon& daemon, Request request, std::shared_ptr<Lines> lines) {
  Progress progress = [lines](const std::string& text) { lines->push(json{{"progress", text}}); };
  auto result = co_await route->handler(daemon, std::move(request), progress);
  lines->done = true;
  if (result) {
    json line;
    line["result"] = *result;
    lines->push(line);
  } else {
    lines->push(error_body(result.error()));
  }
}

Awaitable<bool> send_chunked_header(Socket& socket, const HttpRequest& request, const char* type) {
  http::response<http::empty_body> response(http::status::ok, request.version());
  response.set(http::field::content_type, type);
  response.keep_alive(false);
  response.chunked(true);
  http::response_serializer<http::empty_body> serializer(response);
  boost::system::error_code error;
  co_await http::async_write_header(socket, serializer, into(error));
  co_return !error;
}

Awaitable<void> send_lines(Socket& socket, const HttpRequest& request, std::shared_ptr<Lines> lines) {
  bool connected = co_await send_chunked_header(socket, request, "application/x-ndjson");
  for (;;) {
    while (!lines->waiting.empty()) {
      const std::string line = std::move(lines->waiting.front());
      lines->waiting.pop_front();
      boost::system::error_code error;
      if (connected) co_await asio::async_write(socket, http::make_chunk(asio::buffer(line)), into(error));
      if (error) connected = false;  // the work goes on: half a create is no use to anybody
    }
    if (lines->done) break;
    co_await lines->changed.wait();
  }
  boost::system::error_code ignored;
  if (connected) co_await asio::async_write(socket, http::make_chunk_last(), into(ignored));
}

// Calls `gone` when the client of `socket` hangs up: without this, one that waits for a silent command would be kept
// until the command says something. Lives as long as the request.
class HangUpWatch {
 public:
  HangUpWatch(Socket& socket, std::function<void()> gone)
      : descriptor_(std::make_shared<asio::posix::stream_descriptor>(
            socket.get_executor(), ::fcntl(socket.native_handle(), F_DUPFD_CLOEXEC, 3))) {
    asio::co_spawn(socket.get_executor(), watch(descriptor_, std::move(gone)), asio::detached);
  }
  ~HangUpWatch() {
    boost::system::error_code ignored;
    descriptor_->close(ignored);
  }
  HangUpWatch(const HangUpWatch&) = delete;
  HangUpWatch& operator=(const HangUpWatch&) = delete;

 private:
  static Awaitable<void> watch(std::shared_ptr<asio::posix::stream_descriptor> descriptor, std::function<void()> gone) {
    boost::system::error_code error;
    co_await descriptor->async_wait(asio::posix::stream_descriptor::wait_read, into(error));
    if (error) co_return;
    char byte = 0;
    // A client that sends on (a pipelined request) is still there; it is read when this answer is out.
    if (::recv(descriptor->native_handle(), &byte, 1, MSG_PEEK | MSG_DONTWAIT) <= 0) gone();
  }

  std::shared_ptr<asio::posix::stream_descriptor> descriptor_;
};

// The keeper's stream for /exec/ID/`what`, and its answer's head; kNotFound if the keeper does not know the command.
struct ExecStream {
  std::shared_ptr<sandbox::KeeperClient> keeper;
  std::shared_ptr<wire::Http2Stream> stream;
};
Result<ExecStream> open_exec(Daemon& daemon, const std::string& id, const std::string& what) {
  ExecStream result;
  result.keeper = SBX_TRY(daemon.lifecycle.keeper_of_exec(id), "finding the command");
  result.stream = SBX_TRY(result.keeper->open("GET", "/exec/" + id + "/" + what, true), "reaching the sandbox");
  return result;
}
Result<void> check_found(const Result<wire::Http2Head>& head, const std::string& id) {
  if (!head) return std::unexpected(head.error());
  if (head->status >= 400) return fail(ErrorCode::kNotFound, "command '" + id + "' not found");
  return {};
}

Awaitable<Result<json>> wait_for_exec(Socket& socket, Daemon& daemon, std::string id) {
  SBX_CO_TRY(const auto exec, open_exec(daemon, id, "wait"), "waiting for a command");
  const HangUpWatch watch(socket, [stream = exec.stream] { stream->reset(); });
  const auto head = co_await exec.stream->response();
  SBX_CO_CHECK(check_found(head, id), "waiting for a command");
  SBX_CO_TRY(const auto body, co_await wire::read_body(*exec.stream, 64U << 10U), "waiting for a command");
  auto status = json::parse(body, nullptr, false);
  if (!status.is_object()) co_return fail(ErrorCode::kInternal, "the keeper's answer is not JSON");
  co_return status;
}

Awaitable<void> send_logs(Socket& socket, const HttpRequest& http_request, Daemon& daemon, Request request) {
  const std::string id = request.params["id"];
  const std::string follow = request.query["follow"] == "1" ? "1" : "0";
  const auto exec = open_exec(daemon, id, "logs?follow=" + follow);
  Result<void> found = exec ? Result<void>() : std::unexpected(exec.error());
  if (exec) {
    const auto head = co_await exec->stream->response();
    found = check_found(head, id);
  }
  if (!found) {
    co_await send_json(socket, http_request, wire::http_status(found.error().code), error_body(found.error()));
    co_return;
  }
  const HangUpWatch watch(socket, [stream = exec->stream] { stream->reset(); });
  bool connected = co_await send_chunked_header(socket, http_request, "application/vnd.sbx.stdcopy");
  std::vector<char> buffer(64U << 10U);
  boost::system::error_code error;
  while (connected) {
    auto got = co_await exec->stream->read_some(buffer);
    if (!got) co_return;  // no last chunk: the client sees that the answer is cut short
    if (*got == 0) break;
    co_await asio::async_write(socket, http::make_chunk(asio::buffer(buffer.data(), *got)), into(error));
    if (error) connected = false;
  }
  if (!connected)
    exec->stream->reset();
  else
    co_await asio::async_write(socket, http::make_chunk_last(), into(error));
}

// A follower that does not read keeps this many decisions waiting; what comes then is counted, and told.
constexpr std::size_t kMostWaiting = 10'000;

struct Followed {
  explicit Followed(const asio::any_io_executor& executor) : lines(executor) {}
  Lines lines;
  std::string sandbox_id;  // "": all
  std::size_t missed = 0;

  void take(const json& entry) {
    if (!sandbox_id.empty() && entry.value("sandbox_id", "") != sandbox_id) return;
    if (lines.waiting.size() >= kMostWaiting) {
      ++missed;
      return;
    }
    if (missed != 0) lines.push(json{{"missed", std::exchange(missed, 0)}});
    lines.push(entry);
  }
};

Awaitable<void> send_policy_log(Socket& socket, const HttpRequest& http_request, Daemon& daemon, Request request) {
  const auto filter = log_filter(daemon, request);
  Result<std::vector<json>> before = std::vector<json>();
  if (!filter) before = std::unexpected(filter.error());
  if (filter && filter->limit != 0) before = daemon.lifecycle.policy_log().latest(*filter);
  if (!before) {
    co_await send_json(socket, http_request, wire::http_status(before.error().code), error_body(before.error()));
    co_return;
  }
  auto followed = std::make_shared<Followed>(socket.get_executor());
  followed->sandbox_id = filter->sandbox_id;
  for (const auto& entry : *before) followed->take(entry);
  const policy::Subscription subscription =
      daemon.lifecycle.policy_log().follow([followed](const json& entry) { followed->take(entry); });
  const HangUpWatch watch(socket, [followed] {
    followed->lines.done = true;
    followed->lines.changed.notify();
  });
  co_await send_lines(socket, http_request, std::shared_ptr<Lines>(followed, &followed->lines));
}

Awaitable<bool> answer(Socket& socket, HttpRequest& http_request, LockedString secret, Daemon& daemon, bool& upgraded) {
  Request request;
  request.secret = std::move(secret);
  request.method = std::string(http_request.method_string());
  parse_target(std::string_view(http_request.target().data(), http_request.target().size()), request);
  auto route = find_route(request);
  if (!route)
    co_return co_await send_json(socket, http_request, wire::http_status(route.error().code),
                                 error_body(route.error()));
  if (!http_request.body().empty()) {
    request.body = json::parse(http_request.body(), nullptr, false);
    if (request.body.is_discarded()) {
      const Error error{ErrorCode::kInvalid, "the request's body is not JSON", {}};
      co_return co_await send_json(socket, http_request, 400, error_body(error));
    }
  }
  if ((*route)->kind == Kind::kAttach) {
    if (!beast::websocket::is_upgrade(http_request)) {
      const Error error{ErrorCode::kInvalid, "this route is a WebSocket", {}};
      co_return co_await send_json(socket, http_request, 400, error_body(error));
    }
    upgraded = true;
    co_await serve_attach(std::move(socket), http_request, daemon, request.params["name"]);
    co_return false;
  }
  if ((*route)->kind == Kind::kWait) {
    const auto status = co_await wait_for_exec(socket, daemon, request.params["id"]);
    if (status) co_return co_await send_json(socket, http_request, 200, *status);
    const auto& error = status.error();
    co_return co_await send_json(socket, http_request, wire::http_status(error.code), error_body(error));
  }
  if ((*route)->kind == Kind::kLogs) {
    co_await send_logs(socket, http_request, daemon, std::move(request));
    co_return false;
  }
  if ((*route)->kind == Kind::kPolicyLog) {
    co_await send_policy_log(socket, http_request, daemon, std::move(request));
    co_return false;
  }
  if (http_request[http::field::accept].find("application/x-ndjson") != beast::string_view::npos) {
    const auto executor = co_await asio::this_coro::executor;
    auto lines = std::make_shared<Lines>(executor);
    asio::co_spawn(executor, run_handler(*route, daemon, std::move(request), lines), asio::detached);
    co_await send_lines(socket, http_request, lines);
    co_return false;
  }
  Progress ignore = [](const std::string&) {};
  auto result = co_await (*route)->handler(daemon, std::move(request), ignore);
  if (!result) {
    const int status = wire::http_status(result.error().code);
    co_return co_await send_json(socket, http_request, status, error_body(result.error()));
  }
  co_return co_await send_json(socket, http_request, 200, *result);
}

bool carries_secret(const http::request_header<>& head) {
  Request request;
  request.method = std::string(head.method_string());
  parse_target(std::string_view(head.target().data(), head.target().size()), request);
  const auto route = find_route(request);
  return route && (*route)->kind == Kind::kSecret;
}

// The next request; its body is in `request` or in `secret`. False at the end of the connection.
Awaitable<bool> read_request(Socket& socket, ConnectionBuffer& buffer, HttpRequest& request, LockedString& secret) {
  http::request_parser<http::empty_body> head;
  head.body_limit(kLargestBody);
  boost::system::error_code error;
  co_await http::async_read_header(socket, buffer.get(), head, into(error));
  if (error) co_return false;
  if (carries_secret(head.get())) {
    http::request_parser<LockedBody> parser(std::move(head));
    co_await http::async_read(socket, buffer.get(), parser, into(error));
    buffer.wipe_taken();
    auto message = parser.release();
    secret = std::move(message.body());
    request.base() = std::move(message.base());
  } else {
    http::request_parser<http::string_body> parser(std::move(head));
    co_await http::async_read(socket, buffer.get(), parser, into(error));
    request = parser.release();
  }
  co_return !error;
}

Awaitable<void> serve_connection(Socket socket, Daemon& daemon) {
  ConnectionBuffer buffer;
  for (bool going = true; going;) {
    HttpRequest request;
    LockedString secret;
    const bool read = co_await read_request(socket, buffer, request, secret);
    if (!read) co_return;
    const auto started = store::now_ms();
    bool upgraded = false;
    going = co_await answer(socket, request, std::move(secret), daemon, upgraded);
    sandbox::log_line({{"message", "http request"},
                       {"method", std::string(request.method_string())},
                       {"uri", std::string(request.target())},
                       {"ms", store::now_ms() - started}});
    if (upgraded) co_return;
  }
  boost::system::error_code ignored;
  socket.shutdown(Socket::shutdown_send, ignored);
}

Awaitable<void> guarded_connection(Socket socket, Daemon& daemon) {
  try {
    co_await serve_connection(std::move(socket), daemon);
  } catch (const std::exception& error) {  // of a library; costs this connection only
    sandbox::log_line({{"message", "a request failed with an exception"}, {"error", error.what()}});
  }
}

}  // namespace

Awaitable<void> serve(asio::local::stream_protocol::acceptor listener, Daemon& daemon) {
  for (;;) {
    boost::system::error_code error;
    Socket socket = co_await listener.async_accept(into(error));
    if (error == asio::error::operation_aborted) co_return;
    if (error) {
      // Out of descriptors, most likely: let some connections end before the next attempt.
      asio::steady_timer pause(listener.get_executor(), std::chrono::milliseconds(50));
      co_await pause.async_wait(into(error));
      continue;
    }
    asio::co_spawn(listener.get_executor(), guarded_connection(std::move(socket), daemon), asio::detached);
  }
}

}  // namespace sbx::api
