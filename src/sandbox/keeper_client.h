// The daemon's connection to one keeper (docs/development/protocols.md, "Keeper socket"). What comes back is not
// trusted: bounded, parsed without exceptions, and every call has a deadline. One event loop.
#pragma once

#include <chrono>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "sandbox/async.h"
#include "wire/http2_session.h"

namespace sbx::sandbox {

class KeeperClient {
 public:
  // kUnavailable if nobody listens there.
  static Result<std::shared_ptr<KeeperClient>> connect(boost::asio::any_io_executor executor,
                                                       const std::filesystem::path& socket);
  ~KeeperClient();

  // A small JSON request; kTimeout past the deadline (the call itself is left behind).
  Awaitable<Result<nlohmann::json>> call(std::string method, std::string path, nlohmann::json body,
                                         std::chrono::milliseconds deadline);
  // A streaming request.
  Result<std::shared_ptr<wire::Http2Stream>> open(std::string method, std::string path, bool end);
  // False once the session has ended: connect anew.
  bool alive() const { return *alive_; }

 private:
  KeeperClient(std::shared_ptr<wire::Http2Session> session, std::shared_ptr<bool> alive)
      : session_(std::move(session)), alive_(std::move(alive)) {}
  std::shared_ptr<wire::Http2Session> session_;
  std::shared_ptr<bool> alive_;
};

}  // namespace sbx::sandbox
