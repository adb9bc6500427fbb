#include "cli/client.h"

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <boost/asio/io_context.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>

#include "base/command.h"
#include "base/file.h"

namespace sbx::cli {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;
using nlohmann::json;
using Socket = asio::local::stream_protocol::socket;

namespace {

constexpr int kStartDeadlineMs = 20000;

Result<void> connect(Socket& socket, const std::string& path) {
  boost::system::error_code error;
  socket.connect(asio::local::stream_protocol::endpoint(path), error);
  if (error) return fail(ErrorCode::kUnavailable, "the daemon does not answer on " + path + ": " + error.message());
  return {};
}

Error error_of(const json& body, unsigned status) {
  if (body.is_object() && body.contains("error") && body["error"].is_object()) {
    const auto& error = body["error"];
    return {error_code_from(error.value("code", "internal")), error.value("message", "the daemon gave no reason"), {}};
  }
  return {ErrorCode::kInternal, "the daemon answered with status " + std::to_string(status), {}};
}

http::request<http::string_body> request_for(const std::string& method, const std::string& target, const json& body) {
  http::request<http::string_body> request;
  request.version(11);
  request.method_string(method);
  request.target(target);
  request.set(http::field::host, "sbx");
  request.keep_alive(false);
  if (!body.is_null()) {
    request.set(http::field::content_type, "application/json");
    request.body() = body.dump(-1, ' ', false, json::error_handler_t::replace);
  }
  request.prepare_payload();
  return request;
}

// Hands the body of a response to `sink` as it arrives; the status, or an Error of the connection.
Result<unsigned> exchange(Socket& socket, const http::request<http::string_body>& request,
                          const std::function<void(std::string_view)>& sink) {
  boost::system::error_code error;
  http::write(socket, request, error);
  if (error) return fail(ErrorCode::kUnavailable, "the daemon went away: " + error.message());
  beast::flat_buffer buffer;
  http::response_parser<http::buffer_body> parser;
  parser.body_limit(boost::none);
  http::read_header(socket, buffer, parser, error);
  if (error) return fail(ErrorCode::kUnavailable, "the daemon went away: " + error.message());
  char piece[65536];
  while (!parser.is_done()) {
    parser.get().body().data = piece;
    parser.get().body().size = sizeof piece;
    http::read(socket, buffer, parser, error);
    if (error == http::error::need_buffer) error = {};
    if (error) return fail(ErrorCode::kUnavailable, "the daemon went away: " + error.message());
    sink({piece, sizeof piece - parser.get().body().size});
  }
  return parser.get().result_int();
}

}  // namespace

std::string percent_encode(std::string_view text) {
  static constexpr char kDigits[] = "0123456789ABCDEF";
  std::string encoded;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (std::isalnum(byte) != 0 || c == '-' || c == '.' || c == '_' || c == '~') {
      encoded += c;
    } else {
      encoded += {'%', kDigits[byte >> 4U], kDigits[byte & 15U]};
    }
  }
  return encoded;
}

bool Client::daemon_answers() const {
  const auto where = paths();
  if (!where) return false;
  asio::io_context io;
  Socket socket(io);
  return connect(socket, where->daemon_socket().string()).has_value();
}

Result<void> Client::start_daemon() {
  const auto where = SBX_TRY(paths(), "finding the state folder");
  SBX_CHECK(where.make(), "making the state folders");
  // One starts it, the others wait for that one.
  const auto lock = SBX_TRY(store::lock_file(where.start_lock(), {}), "waiting for another start of the daemon");
  if (daemon_answers()) return {};
  std::error_code error;
  const auto program = std::filesystem::read_symlink("/proc/self/exe", error).parent_path() / "sbxd";
  int ready[2];
  if (::pipe2(ready, O_CLOEXEC) != 0) return fail_errno("making a pipe", errno);
  UniqueFd ready_read(ready[0]);
  UniqueFd ready_write(ready[1]);
  Command command({program.string(), "--ready-fd", std::to_string(ready_write.get())});
  if (!app_name_.empty()) command.add({"--app-name", app_name_});
  auto log = SBX_TRY(open_file(where.daemon_log(), O_WRONLY | O_CREAT | O_APPEND), "opening the daemon's log");
  auto child = SBX_TRY(
      command.keep_fd(ready_write.get()).stderr_to(log.get()).working_folder("/").new_session().start(), "starting sbxd");
  child.release();
  ready_write.reset();
  pollfd poll_ready{ready_read.get(), POLLIN, 0};
  char byte = 0;
  if (::poll(&poll_ready, 1, kStartDeadlineMs) != 1 || ::read(ready_read.get(), &byte, 1) != 1) {
    return fail(ErrorCode::kUnavailable, "sbxd did not start; its log is " + where.daemon_log().string());
  }
  return {};
}

Result<std::string> Client::socket() {
  if (!daemon_answers()) SBX_CHECK(start_daemon(), "starting the daemon");
  return SBX_TRY(paths(), "finding the state folder").daemon_socket().string();
}

Result<json> Client::call(const std::string& method, const std::string& target, const json& body,
                          const std::function<void(const std::string&)>& progress) {
  const auto path = SBX_TRY(socket(), method + " " + target);
  asio::io_context io;
  Socket connection(io);
  SBX_CHECK(connect(connection, path), method + " " + target);
  auto request = request_for(method, target, body);
  if (progress) request.set(http::field::accept, "application/x-ndjson");
  std::string text;
  json last;
  const auto take_lines = [&] {
    for (auto end = text.find('\n'); end != std::string::npos; end = text.find('\n')) {
      auto line = json::parse(text.substr(0, end), nullptr, false);
      text.erase(0, end + 1);
      if (line.is_object() && line.contains("progress")) {
        if (line["progress"].is_string()) progress(line["progress"]);
      } else {
        last = std::move(line);
      }
    }
  };
  const auto status = SBX_TRY(exchange(connection, request,
                                       [&](std::string_view piece) {
                                         text.append(piece);
                                         if (progress) take_lines();
                                       }),
                              method + " " + target);
  if (progress && last.is_object()) {
    if (last.contains("error")) return std::unexpected(error_of(last, status));
    return last.contains("result") ? last["result"] : last;
  }
  auto document = progress ? last : json::parse(text, nullptr, false);
  if (status >= 400) return std::unexpected(error_of(document, status));
  if (document.is_discarded()) return fail(ErrorCode::kInternal, "the daemon's answer is not JSON");
  return document;
}

Result<void> Client::stream(const std::string& target, const std::function<void(std::string_view)>& sink) {
  const auto path = SBX_TRY(socket(), "GET " + target);
  asio::io_context io;
  Socket connection(io);
  SBX_CHECK(connect(connection, path), "GET " + target);
  std::string refused;
  // A refusal is JSON and short; a stream begins with a stdcopy header, never with '{'.
  bool error_body = false;
  bool first = true;
  const auto status = SBX_TRY(exchange(connection, request_for("GET", target, nullptr),
                                       [&](std::string_view piece) {
                                         if (piece.empty()) return;
                                         if (std::exchange(first, false)) error_body = piece.front() == '{';
                                         if (error_body) {
                                           refused.append(piece);
                                         } else {
                                           sink(piece);
                                         }
                                       }),
                              "GET " + target);
  if (status >= 400) return std::unexpected(error_of(json::parse(refused, nullptr, false), status));
  return {};
}

}  // namespace sbx::cli
