// Client: the daemon's HTTP API over its unix socket, blocking. Starts the daemon when it does not run. One thread.
#pragma once

#include <functional>
#include <nlohmann/json.hpp>
#include <string>

#include "base/result.h"
#include "store/paths.h"

namespace sbx::cli {

class Client {
 public:
  explicit Client(std::string app_name) : app_name_(std::move(app_name)) {}

  // Starts the daemon if nobody answers; then a connected socket's path.
  Result<std::string> socket();
  // The socket's path without starting anything.
  Result<store::Paths> paths() const { return store::Paths::from_environment(app_name_); }
  Result<void> start_daemon();
  bool daemon_answers() const;

  // A JSON call. With `progress` the daemon reports on long work as it goes.
  Result<nlohmann::json> call(const std::string& method, const std::string& target, const nlohmann::json& body = nullptr,
                              const std::function<void(const std::string&)>& progress = {});
  // A streamed body, piece by piece.
  Result<void> stream(const std::string& target, const std::function<void(std::string_view)>& sink);

 private:
  std::string app_name_;
};

std::string percent_encode(std::string_view text);

}  // namespace sbx::cli
