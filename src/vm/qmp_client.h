// QmpClient: QEMU's machine protocol (docs/interop/qmp-spec in QEMU) over a connected unix socket.
//
// The peer may be a QEMU that its guest has taken over: lines are bounded, every call has a deadline, and anything that
// is not what was asked for is an error. After a protocol error or a broken connection every call fails.
// All calls from the coroutine executor given at construction (one thread); calls from several coroutines are queued.
#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <chrono>
#include <deque>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "base/result.h"
#include "base/unique_fd.h"
#include "vm/awaitable.h"

namespace sbx::vm {

class QmpClient {
 public:
  static constexpr std::size_t kMaximumLine = 1U << 20U;
  static constexpr std::size_t kMaximumEvents = 256;  // the oldest are dropped
  using Duration = std::chrono::steady_clock::duration;

  QmpClient(boost::asio::any_io_executor executor, UniqueFd socket);
  QmpClient(QmpClient&&) noexcept;
  QmpClient& operator=(QmpClient&&) noexcept;
  ~QmpClient();

  // Reads the greeting and leaves the negotiation mode. Once, before anything else.
  Awaitable<Result<void>> handshake(Duration deadline);

  // The "return" member of the answer; QEMU's own refusal is kInternal with its description as message.
  // `fd` >= 0 is passed along with the command (SCM_RIGHTS, for add-fd and getfd); the caller keeps it.
  Awaitable<Result<nlohmann::json>> execute(std::string command, nlohmann::json arguments = nlohmann::json::object(),
                                            int fd = -1, Duration deadline = std::chrono::seconds(10));

  // Waits until an event (any) has arrived that was not there at the call; kTimeout leaves the connection usable.
  Awaitable<Result<void>> wait_for_event(Duration deadline);

  // Returns when QEMU has said something, or the connection has ended, without reading it; perhaps also for nothing.
  Awaitable<void> readable();

  // Events seen so far ({"event","data","timestamp"}), oldest first; the caller may remove what it has read.
  std::deque<nlohmann::json>& events();

 private:
  struct State;
  std::shared_ptr<State> state_;
};

}  // namespace sbx::vm
