// The guest's ends of the virtio-serial ports.
#pragma once

#include <string>
#include <string_view>

#include "base/result.h"
#include "base/unique_fd.h"

namespace sbx::guest {

// "/dev/vportXpY" of the port with this name; kNotFound while the kernel has not seen it.
Result<std::string> find_port(std::string_view name);

// Waits for something to happen to a port whose host side has gone. poll(2) would answer POLLHUP at once for ever, so
// this is an edge-triggered epoll of its own: fd() is readable (once) after each change. Any thread, one at a time.
class PortEdge {
 public:
  explicit PortEdge(int port);
  int fd() const { return epoll_.get(); }
  // Forgets the changes so far. Look at the port after this, not before.
  void consume();
  static bool host_is_there(int port);

 private:
  UniqueFd epoll_;
};

}  // namespace sbx::guest
