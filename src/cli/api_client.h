// The CLI's side of the daemon's API: HTTP/1.1 on its unix socket, and starting it when nobody answers. Blocking; small
// on purpose (no HTTP library), since every command pays for its start.
#pragma once

#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "base/locked_string.h"
#include "base/result.h"
#include "base/unique_fd.h"
#include "store/paths.h"

namespace sbx::cli {

class ApiClient {
 public:
  ApiClient(store::Paths paths, std::string app_name) : paths_(std::move(paths)), app_name_(std::move(app_name)) {}
  const store::Paths& paths() const { return paths_; }
  const std::string& app_name() const { return app_name_; }

  // A connection to the daemon; with `start` it is started if it does not run (else kUnavailable).
  Result<UniqueFd> connect(bool start = true) const;
  // One request. `progress`, if given, asks for NDJSON and sees each line for a person. API errors keep their code.
  using Progress = std::function<void(const std::string&)>;
  Result<nlohmann::json> call(const std::string& method, const std::string& target,
                              const nlohmann::json& body = nullptr, const Progress& progress = {}) const;
  // PUT /v1/secrets: `head` and the value, which goes from locked memory to the socket.
  Result<nlohmann::json> put_secret(const nlohmann::json& head, const LockedString& value) const;
  // A GET whose body goes to `sink` as it comes. kNotFound and the like as call().
  Result<void> stream(const std::string& target, const std::function<Result<void>(std::string_view)>& sink) const;
  bool start_daemon = true;

 private:
  Result<void> spawn_daemon() const;
  Result<nlohmann::json> call_once(const std::string& method, const std::string& target, const nlohmann::json& body,
                                   const Progress& progress) const;
  store::Paths paths_;
  std::string app_name_;
};

// Blocking reads of one HTTP/1.1 response.
class ResponseReader {
 public:
  explicit ResponseReader(int fd) : fd_(fd) {}
  Result<int> read_head();  // the status
  // The next piece of the body; "" is its end.
  Result<std::string> read_piece();
  std::string take_rest() { return std::move(buffer_); }

 private:
  Result<bool> fill();
  Result<std::string> line();
  int fd_;
  std::string buffer_;
  bool chunked_ = false;
  bool done_ = false;
  std::size_t left_ = 0;
};

std::string percent_encode(std::string_view text);
Error error_from(const nlohmann::json& body);

}  // namespace sbx::cli
