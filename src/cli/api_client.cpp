#include "cli/api_client.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <cstring>
#include <filesystem>

#include "base/command.h"
#include "base/file.h"
#include "wire/length_prefix.h"

namespace sbx::cli {

using nlohmann::json;

namespace {

constexpr std::size_t kLongestLine = 1U << 20U;
constexpr const char* kLost = "the daemon went away";
constexpr int kStartDeadlineMs = 30'000;

Result<UniqueFd> connect_to(const std::filesystem::path& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.native().size() >= sizeof address.sun_path)
    return fail(ErrorCode::kInvalid, "socket path too long: " + path.native());
  std::memcpy(address.sun_path, path.c_str(), path.native().size());
  UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!fd.valid()) return fail_errno("making a socket", errno);
  if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    return fail(ErrorCode::kUnavailable, "the daemon is not running");
  }
  return fd;
}

Result<json> json_answer(int status, const std::string& text) {
  json answer = json::parse(text, nullptr, false);
  if (status >= 400) return std::unexpected(error_from(answer));
  if (answer.is_discarded()) return fail(ErrorCode::kInternal, "the daemon's answer is not JSON");
  return answer;
}

std::string request_text(const std::string& method, const std::string& target, const json& body, bool lines) {
  std::string text = method + " " + target + " HTTP/1.1\r\nHost: sbx\r\nConnection: close\r\n";
  if (lines) text += "Accept: application/x-ndjson\r\n";
  if (body.is_null()) return text + "Content-Length: 0\r\n\r\n";
  const std::string payload = body.dump(-1, ' ', false, json::error_handler_t::replace);
  return text + "Content-Type: application/json\r\nContent-Length: " + std::to_string(payload.size()) + "\r\n\r\n" +
         payload;
}

}  // namespace

std::string percent_encode(std::string_view text) {
  std::string encoded;
  for (const char c : text) {
    if (std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '-' || c == '.' || c == '_') {
      encoded += c;
    } else {
      encoded += '%';
      encoded += "0123456789ABCDEF"[static_cast<unsigned char>(c) >> 4U];
      encoded += "0123456789ABCDEF"[static_cast<unsigned char>(c) & 15U];
    }
  }
  return encoded;
}

Error error_from(const json& body) {
  Error error{ErrorCode::kInternal, "the daemon failed without a message", {}};
  if (!body.is_object() || !body.contains("error") || !body["error"].is_object()) return error;
  error.code = error_code_from(body["error"].value("code", "internal"));
  error.message = body["error"].value("message", error.message);
  return error;
}

Result<void> ApiClient::spawn_daemon() const {
  SBX_CHECK(paths_.make(), "making the state folders");
  // One starter at a time; whoever comes second finds the daemon running.
  const auto lock = SBX_TRY(store::lock_file(paths_.start_lock(), {.wait = true}), "waiting to start the daemon");
  if (connect_to(paths_.daemon_socket())) return {};
  const auto program = std::filesystem::read_symlink("/proc/self/exe").parent_path() / "sbxd";
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) return fail_errno("making a pipe", errno);
  const UniqueFd ready(ends[0]);
  UniqueFd write_end(ends[1]);
  Command command({program.native(), "--ready-fd", std::to_string(write_end.get())});
  if (!app_name_.empty()) command.add({"--app-name", app_name_});
  // stderr is the log until the daemon has opened it itself: what it says before it dies is worth reading.
  auto log = SBX_TRY(open_file(paths_.daemon_log(), O_WRONLY | O_CREAT | O_APPEND, 0600), "opening the daemon's log");
  auto child = SBX_TRY(command.keep_fd(write_end.get()).stderr_to(log.get()).new_session().working_folder("/").start(),
                       "starting " + program.native());
  write_end.reset();
  pollfd waiting{ready.get(), POLLIN, 0};
  char byte = 0;
  if (::poll(&waiting, 1, kStartDeadlineMs) <= 0 || ::read(ready.get(), &byte, 1) != 1) {
    return fail(ErrorCode::kUnavailable, "the daemon did not start; see " + paths_.daemon_log().native());
  }
  child.release();
  return {};
}

Result<UniqueFd> ApiClient::connect(bool start) const {
  auto fd = connect_to(paths_.daemon_socket());
  if (fd || !start || !start_daemon) return fd;
  SBX_CHECK(spawn_daemon(), "starting the daemon");
  return connect_to(paths_.daemon_socket());
}

Result<bool> ResponseReader::fill() {
  char piece[65536];
  ssize_t got = 0;
  do {
    got = ::recv(fd_, piece, sizeof piece, 0);
  } while (got < 0 && errno == EINTR);
  if (got < 0) return fail(ErrorCode::kUnavailable, kLost);  // ECONNRESET
  buffer_.append(piece, static_cast<std::size_t>(got));
  return got > 0;
}

Result<std::string> ResponseReader::line() {
  for (;;) {
    const auto end = buffer_.find("\r\n");
    if (end != std::string::npos) {
      std::string text = buffer_.substr(0, end);
      buffer_.erase(0, end + 2);
      return text;
    }
    if (buffer_.size() > kLongestLine) return fail(ErrorCode::kInternal, "the daemon's answer is not HTTP");
    if (!SBX_TRY(fill(), "reading an answer")) return fail(ErrorCode::kUnavailable, kLost);
  }
}

Result<int> ResponseReader::read_head() {
  const std::string first = SBX_TRY(line(), "reading an answer");
  if (!first.starts_with("HTTP/1.1 ") || first.size() < 12)
    return fail(ErrorCode::kInternal, "the daemon's answer is not HTTP");
  for (;;) {
    std::string header = SBX_TRY(line(), "reading an answer");
    if (header.empty()) break;
    for (char& c : header) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    if (header.starts_with("content-length:")) left_ = std::strtoull(header.c_str() + 15, nullptr, 10);
    if (header.starts_with("transfer-encoding:") && header.find("chunked") != std::string::npos) chunked_ = true;
  }
  return std::atoi(first.c_str() + 9);
}

Result<std::string> ResponseReader::read_piece() {
  if (done_) return std::string();
  if (chunked_ && left_ == 0) {
    left_ = std::strtoull(SBX_TRY(line(), "reading an answer").c_str(), nullptr, 16);
    if (left_ == 0) done_ = true;
  }
  if (left_ == 0) return std::string();
  while (buffer_.empty()) {
    if (!SBX_TRY(fill(), "reading an answer")) return fail(ErrorCode::kUnavailable, kLost);
  }
  std::string piece = buffer_.substr(0, left_);
  buffer_.erase(0, piece.size());
  left_ -= piece.size();
  if (chunked_ && left_ == 0) SBX_TRY(line(), "reading an answer");
  return piece;
}

Result<json> ApiClient::call(const std::string& method, const std::string& target, const json& body,
                             const Progress& progress) const {
  // A daemon that dies under a question that changes nothing: ask the next one.
  for (int attempt = 0; method == "GET" && attempt < 3; ++attempt) {
    auto answer = call_once(method, target, body, progress);
    if (answer || answer.error().code != ErrorCode::kUnavailable || answer.error().message != kLost) return answer;
  }
  return call_once(method, target, body, progress);
}

Result<json> ApiClient::call_once(const std::string& method, const std::string& target, const json& body,
                                  const Progress& progress) const {
  const auto fd = SBX_TRY(connect(), "reaching the daemon");
  if (!write_all(fd.get(), request_text(method, target, body, static_cast<bool>(progress))))
    return fail(ErrorCode::kUnavailable, kLost);
  ResponseReader reader(fd.get());
  const int status = SBX_TRY(reader.read_head(), "asking the daemon");
  std::string text;
  json answer;
  for (;;) {
    const std::string piece = SBX_TRY(reader.read_piece(), "asking the daemon");
    text += piece;
    if (piece.empty()) break;
    for (auto end = text.find('\n'); progress && status == 200 && end != std::string::npos; end = text.find('\n')) {
      json parsed = json::parse(text.substr(0, end), nullptr, false);
      text.erase(0, end + 1);
      if (!parsed.is_object()) continue;
      if (parsed.contains("progress"))
        progress(parsed.value("progress", ""));
      else
        answer = std::move(parsed);
    }
  }
  if (!progress || status != 200) return json_answer(status, text);
  if (answer.is_object() && answer.contains("result")) return answer["result"];
  return std::unexpected(error_from(answer));
}

Result<json> ApiClient::put_secret(const json& head, const LockedString& value) const {
  const auto fd = SBX_TRY(connect(), "reaching the daemon");
  const std::string prefix = wire::length_prefixed(head.dump(-1, ' ', false, json::error_handler_t::replace));
  const std::string request =
      "PUT /v1/secrets HTTP/1.1\r\nHost: sbx\r\nConnection: close\r\nContent-Type: application/vnd.sbx.secret\r\n"
      "Content-Length: " +
      std::to_string(prefix.size() + value.size()) + "\r\n\r\n" + prefix;
  if (!write_all(fd.get(), request) || !write_all(fd.get(), value.reveal()))
    return fail(ErrorCode::kUnavailable, kLost);
  ResponseReader reader(fd.get());
  const int status = SBX_TRY(reader.read_head(), "asking the daemon");
  std::string text;
  for (;;) {
    const std::string piece = SBX_TRY(reader.read_piece(), "asking the daemon");
    if (piece.empty()) return json_answer(status, text);
    text += piece;
  }
}

Result<void> ApiClient::stream(const std::string& target,
                               const std::function<Result<void>(std::string_view)>& sink) const {
  const auto fd = SBX_TRY(connect(), "reaching the daemon");
  SBX_CHECK(write_all(fd.get(), request_text("GET", target, nullptr, false)), "asking the daemon");
  ResponseReader reader(fd.get());
  const int status = SBX_TRY(reader.read_head(), "asking the daemon");
  std::string error;
  for (;;) {
    const std::string piece = SBX_TRY(reader.read_piece(), "asking the daemon");
    if (piece.empty()) break;
    if (status >= 400)
      error += piece;
    else
      SBX_CHECK(sink(piece), "reading the answer");
  }
  if (status >= 400) return std::unexpected(error_from(json::parse(error, nullptr, false)));
  return {};
}

}  // namespace sbx::cli
