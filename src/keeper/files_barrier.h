// FilesBarrier: asks sbx-files, before a command starts, how many notifications it has sent to the guest for what has
// happened in the workspaces so far; the guest starts the command when its kernel has had that many. One executor.
//
// What comes back is a number, whoever answers: sbx-files reads the guest's bytes and may be the guest's.
#pragma once

#include <boost/asio/posix/stream_descriptor.hpp>
#include <cstdint>
#include <optional>

#include "base/unique_fd.h"
#include "wire/http2_session.h"
#include "wire/signal.h"

namespace sbx::keeper {

class FilesBarrier {
 public:
  explicit FilesBarrier(const boost::asio::any_io_executor& executor) : socket_(executor), turn_(executor) {}

  // The control socket of a server that has just been started; the one before is given up.
  void connect(UniqueFd socket);
  // Nullopt if there is no server, or none that answers in time.
  wire::Awaitable<std::optional<std::uint64_t>> ask();

 private:
  boost::asio::posix::stream_descriptor socket_;
  wire::Signal turn_;
  bool busy_ = false;
};

}  // namespace sbx::keeper
