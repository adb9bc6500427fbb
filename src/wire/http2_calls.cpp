// Small JSON calls on top of Http2Session.
#include <array>
#include <nlohmann/json.hpp>

#include "wire/http2_session.h"

namespace sbx::wire {

using nlohmann::json;

int http_status(ErrorCode code) {
  switch (code) {
    case ErrorCode::kNotFound:
      return 404;
    case ErrorCode::kConflict:
      return 409;
    case ErrorCode::kDenied:
      return 403;
    case ErrorCode::kInvalid:
      return 400;
    case ErrorCode::kUnavailable:
      return 503;
    case ErrorCode::kTimeout:
      return 504;
    case ErrorCode::kInternal:
      break;
  }
  return 500;
}

Awaitable<Result<std::string>> read_body(Http2Stream& stream, std::size_t limit) {
  std::string body;
  std::vector<char> buffer(16384);
  for (;;) {
    SBX_CO_TRY(const std::size_t n, co_await stream.read_some(buffer), "reading a body");
    if (n == 0) co_return body;
    if (body.size() + n > limit) {
      stream.reset();
      co_return fail(ErrorCode::kInvalid, "the body is larger than " + std::to_string(limit) + " bytes");
    }
    body.append(buffer.data(), n);
  }
}

namespace {

Error error_from(int status, const std::string& body) {
  const auto document = json::parse(body, nullptr, false);
  if (document.is_object() && document.contains("error") && document["error"].is_object()) {
    const auto& error = document["error"];
    const auto text = [&](const char* key) {
      return error.contains(key) && error[key].is_string() ? error[key].get<std::string>() : std::string();
    };
    return Error{error_code_from(text("code")), text("message"), {}};
  }
  return Error{ErrorCode::kInternal, "the peer answered with status " + std::to_string(status), {}};
}

}  // namespace

Awaitable<Result<std::string>> call(Http2Session& session, std::string method, std::string path, std::string body,
                                    std::size_t limit) {
  const std::string what = method + " " + path;
  Http2Head head;
  head.method = std::move(method);
  head.path = std::move(path);
  SBX_CO_TRY(auto stream, session.open(std::move(head), body.empty()), what);
  if (!body.empty()) {
    SBX_CO_CHECK(co_await stream->write(body), what);
    SBX_CO_CHECK(co_await stream->finish(), what);
  }
  SBX_CO_TRY(const auto response, co_await stream->response(), what);
  SBX_CO_TRY(auto text, co_await read_body(*stream, limit), what);
  if (response.status >= 400) co_return std::unexpected(error_from(response.status, text));
  co_return text;
}

Awaitable<void> send_json(Http2Stream& stream, int status, std::string body) {
  std::vector<std::pair<std::string, std::string>> headers;
  headers.emplace_back("content-type", "application/json");
  if (!stream.respond(status, std::move(headers), false)) co_return;
  if (!co_await stream.write(body)) co_return;
  (void)co_await stream.finish();
}

Awaitable<void> send_error(Http2Stream& stream, const Error& error) {
  json document;
  document["error"]["code"] = to_string(error.code);
  document["error"]["message"] = error.describe();
  return send_json(stream, http_status(error.code), document.dump(-1, ' ', false, json::error_handler_t::replace));
}

}  // namespace sbx::wire
