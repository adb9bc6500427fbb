// MachineControl: drives a QEMU over its QMP connection, and nothing else of the host: it needs one connected socket.
// What QEMU answers is not trusted (see QmpClient). One thread: that of the executor.
#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <chrono>
#include <string>

#include "base/result.h"
#include "base/unique_fd.h"
#include "vm/awaitable.h"
#include "vm/qmp_client.h"

namespace sbx::vm {

class MachineControl {
 public:
  using Duration = std::chrono::steady_clock::duration;

  MachineControl(boost::asio::any_io_executor executor, UniqueFd qmp, int qemu_major)
      : qmp_(std::move(executor), std::move(qmp)), qemu_major_(qemu_major) {}

  // Returns when QMP answers. Once, before anything else.
  Awaitable<Result<void>> greet(Duration deadline = std::chrono::seconds(20)) { return qmp_.handshake(deadline); }
  // A machine that waits for its state: loads QEMU's own stream from `fd` (pipe or file); it is then paused.
  // `ignore_shared`: a template's, which has its RAM beside it.
  Awaitable<Result<void>> load_stream(int fd, bool ignore_shared, Duration deadline);
  // Paused: QEMU's migration stream into `fd` (a pipe's writing end or a file). QEMU refuses another save until the
  // machine has run again.
  Awaitable<Result<void>> save_stream(int fd, bool ignore_shared, Duration deadline);
  Awaitable<Result<void>> resume();
  Awaitable<Result<void>> pause();
  // "running", "paused", "inmigrate", "shutdown", ...
  Awaitable<Result<std::string>> status();
  // Asks QEMU to flush the disk and end. It may be gone before it has answered.
  Awaitable<void> quit(Duration deadline = std::chrono::seconds(10));

  QmpClient& qmp() { return qmp_; }

 private:
  Awaitable<Result<void>> set_migration(bool ignore_shared);
  Awaitable<Result<std::string>> hand_over(int fd);
  Awaitable<void> take_back();

  QmpClient qmp_;
  int qemu_major_;
};

}  // namespace sbx::vm
