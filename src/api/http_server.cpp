#include "api/http_server.h"

#include <boost/asio/detached.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>
#include <boost/beast/websocket.hpp>
#include <cstdio>
#include <deque>

#include "api/exec_bridge.h"
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

Awaitable<void> send_logs(Socket& socket, const HttpRequest& http_request, Daemon& daemon, Request request) {
  const std::string id = request.params["id"];
  auto keeper = daemon.lifecycle.keeper_of_exec(id);
  if (!keeper) {
    co_await send_json(socket, http_request, wire::http_status(keeper.error().code), error_body(keeper.error()));
    co_return;
  }
  const std::string follow = request.query["follow"] == "1" ? "1" : "0";
  auto stream = (*keeper)->open("GET", "/exec/" + id + "/logs?follow=" + follow, true);
  Result<wire::Http2Head> head = fail(ErrorCode::kUnavailable, "the sandbox cannot be reached");
  if (stream) head = co_await (*stream)->response();
  if (!head || head->status >= 400) {
    Error error = head ? Error{ErrorCode::kNotFound, "command '" + id + "' not found", {}} : head.error();
    co_await send_json(socket, http_request, wire::http_status(error.code), error_body(error));
    co_return;
  }
  bool connected = co_await send_chunked_header(socket, http_request, "application/vnd.sbx.stdcopy");
  std::vector<char> buffer(64U << 10U);
  boost::system::error_code error;
  while (connected) {
    auto got = co_await (*stream)->read_some(buffer);
    if (!got || *got == 0) break;
    co_await asio::async_write(socket, http::make_chunk(asio::buffer(buffer.data(), *got)), into(error));
    if (error) connected = false;
  }
  if (!connected)
    (*stream)->reset();
  else
    co_await asio::async_write(socket, http::make_chunk_last(), into(error));
}

Awaitable<bool> answer(Socket& socket, HttpRequest& http_request, Daemon& daemon, bool& upgraded) {
  Request request;
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
  if ((*route)->kind == Kind::kLogs) {
    co_await send_logs(socket, http_request, daemon, std::move(request));
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

Awaitable<void> serve_connection(Socket socket, Daemon& daemon) {
  beast::flat_buffer buffer;
  for (bool going = true; going;) {
    http::request_parser<http::string_body> parser;
    parser.body_limit(kLargestBody);
    boost::system::error_code error;
    co_await http::async_read(socket, buffer, parser, into(error));
    if (error) co_return;
    HttpRequest request = parser.release();
    const auto started = store::now_ms();
    bool upgraded = false;
    going = co_await answer(socket, request, daemon, upgraded);
    log_line({{"message", "http request"},
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
    log_line({{"message", "a request failed with an exception"}, {"error", error.what()}});
  }
}

}  // namespace

void log_line(json entry) {
  entry["time"] = store::rfc3339(store::now_ms());
  const std::string line = dump(entry) + "\n";
  std::fwrite(line.data(), 1, line.size(), stderr);
}

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
